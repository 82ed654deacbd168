"""Random numbers that follow from a seed alone: the same on every machine, in any batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from feature_store.hashing import keys_of, mix

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


def uniform(seeds: np.ndarray, width: int) -> np.ndarray:
    """Numbers in (0, 1), float64 [B, width]: row b is a stream of its own, of `seeds[b]`, integers
    [B].

    The streams are those of splitmix64 (Steele, Lea, Flood, 2014), begun at the mixed seed, so that
    seeds that follow each other share nothing.
    """
    with np.errstate(over="ignore"):
        start = mix(np.asarray(seeds).astype(np.int64).view(np.uint64) + _GAMMA)
        steps = np.arange(1, width + 1, dtype=np.uint64) * _GAMMA
        bits = mix(start[:, None] + steps) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * _UNIT


def seeds_of(ids: pa.Array, salt: str) -> np.ndarray:
    """A seed, int64 [n], for each id, and another one for another salt. An integer and the text of
    its digits are the same id; null is one, too."""
    texts = ids.cast(pa.string()).to_pylist()
    return keys_of(pa.array([f"{salt}\0{'' if text is None else text}" for text in texts]))
