"""64-bit keys of raw ids: the same on every process, machine and version of this program.

Where ids have no vocabulary their keys stand in its rows' place, as codes: 0 is no id there.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
CODE_OF_ZERO = -(1 << 63)
_WORD = 8  # bytes
_CHUNK = 1 << 18  # ids hashed at a time: what they read and write stays in the cache


def keys_of(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Keys [n] int64 of ids without nulls: an integer is its own key, a string is hashed.

    A string is read as little-endian words of eight bytes, the last filled up with zeros. Each
    word w turns the state h, which starts from the length in bytes, into mix(h ^ w), where mix is
    the finaliser of splitmix64 (Steele, Lea, Flood, 2014). All strings advance together, word by
    word.
    """
    if isinstance(ids, pa.ChunkedArray):
        parts = [keys_of(chunk) for chunk in ids.chunks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.cast(pa.int64()))
    strings = ids.cast(pa.large_string())
    out = np.empty(len(strings), np.int64)
    for start in range(0, len(strings), _CHUNK):
        part = strings.slice(start, _CHUNK)
        out[start : start + len(part)] = _hash_strings(part)
    return out


def codes_of(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Codes [n] int64 of ids: their keys, 0 for null.

    The one id whose key is 0 has the code CODE_OF_ZERO, which it shares with the one whose key that
    is: an integer of -2^63, or one string of 2^64.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    out = np.zeros(len(ids), np.int64)
    keys = keys_of(ids.drop_null())
    there = ids.is_valid().to_numpy(zero_copy_only=False) if ids.null_count else slice(None)
    out[there] = np.where(keys == 0, CODE_OF_ZERO, keys)
    return out


def keys_of_codes(codes: np.ndarray) -> np.ndarray:
    """Keys [n] of codes that are not 0."""
    return np.where(codes == CODE_OF_ZERO, 0, codes)


def _hash_strings(strings: pa.LargeStringArray) -> np.ndarray:
    _, offsets_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[strings.offset :][: len(strings) + 1]
    first, lengths = offsets[0], np.diff(offsets)
    size = int(offsets[-1] - first)
    data = np.zeros(size + _WORD, np.uint8)  # words may be read past the last byte
    if size:
        data[:size] = np.frombuffer(data_buffer, np.uint8, size, int(first))
    # a word at every byte: views that overlap
    words = np.ndarray(size + 1, "<u8", data, strides=(1,))
    starts = offsets[:-1] - first
    with np.errstate(over="ignore"):
        state = (lengths.astype(np.uint64) + np.uint64(1)) * _GAMMA
        left, active = lengths, np.arange(len(lengths))
        place = 0
        while True:
            going = left > 0
            if not going.all():
                active, left = active[going], left[going]
            if not len(active):
                return state.view(np.int64)
            word = words[starts[active] + place]
            spare = np.maximum(_WORD - left, 0).astype(np.uint64) * np.uint64(8)  # bits
            word &= ~np.uint64(0) >> spare
            state[active] = mix(state[active] ^ word)
            place, left = place + _WORD, left - _WORD


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 of every uint64: one bit of `x` turns half of the bits over."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
