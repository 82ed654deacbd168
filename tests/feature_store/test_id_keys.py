"""Keys of raw ids: the same for ever, whatever lies beside them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.hashing import keys_of
from feature_store.vocabulary import Vocabulary

MASK = (1 << 64) - 1


def key(text: str) -> int:
    """The definition on Python's unbounded integers, one word at a time."""
    data = text.encode()
    state = (len(data) + 1) * 0x9E3779B97F4A7C15 & MASK
    for start in range(0, len(data), 8):
        x = state ^ int.from_bytes(data[start : start + 8], "little")
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
        state = x ^ (x >> 31)
    return state - (1 << 64) if state >> 63 else state


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=40)))
def test_strings_are_hashed_as_defined(texts: list[str]) -> None:
    texts = [text for text in texts if text.isprintable()]  # surrogates are no UTF-8
    assert keys_of(pa.array(texts, pa.string())).tolist() == [key(text) for text in texts]


def test_keys_of_saved_models_stay_what_they_are() -> None:
    """Raise recsys.embeddings.hashing.VERSION when this must change."""
    found = keys_of(pa.array(["", "a", "abcdefgh", "abcdefghi", "é"]))
    assert found.tolist() == [
        *(-7046029254386353131, 1387786489429541378, -4222104437523931031),
        *(-1298450830840982358, 6764256505181634929),
    ]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.uint8()])
def test_an_integer_is_its_own_key(kind: pa.DataType) -> None:
    assert keys_of(pa.array([5, 0, 255], kind)).tolist() == [5, 0, 255]
    assert keys_of(pa.array([-(2**63), 2**63 - 1])).tolist() == [-(2**63), 2**63 - 1]


def test_slices_and_chunks_make_no_difference() -> None:
    texts = [f"id-{'x' * (n % 20)}{n}" for n in range(1000)]
    expected = keys_of(pa.array(texts)).tolist()
    assert keys_of(pa.array(["head", *texts, "tail"]).slice(1, 1000)).tolist() == expected
    chunks = pa.chunked_array([texts[:7], [], texts[7:500], texts[500:]], pa.string())
    assert keys_of(chunks).tolist() == expected
    assert keys_of(pa.array(texts, pa.large_string())).tolist() == expected


def test_a_hundred_thousand_like_strings_do_not_collide_and_spread() -> None:
    keys = keys_of(pa.array([f"user_{n:08d}" for n in range(100_000)]))
    assert len(np.unique(keys)) == 100_000
    assert (
        abs(np.bincount(keys.astype(np.uint64) >> np.uint64(60), minlength=16) - 6250).max() < 400
    )


def test_another_process_finds_the_same_keys() -> None:
    """Python's own hash of strings would not."""
    program = (
        "import pyarrow as pa; from feature_store.hashing import keys_of;"
        "print(keys_of(pa.array(['b', 'häß'])).tolist())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == str(keys_of(pa.array(["b", "häß"])).tolist()), found.stderr


def test_a_vocabulary_grows_at_its_end() -> None:
    old = Vocabulary.fit(pa.array(["m", "c"]))
    grown = Vocabulary.fit(pa.array(["z", "a", "c", None]), base=old)
    assert grown.values.to_pylist() == ["c", "m", "a", "z"]
    ids = pa.array(["c", "m"])
    assert grown.encode(ids).tolist() == old.encode(ids).tolist() == [1, 2]
    assert grown.fingerprint_of(len(old)) == old.fingerprint != grown.fingerprint
    assert grown.fingerprint_of(2) != old.fingerprint
    assert grown.keys.tolist() == [key(text) for text in ["c", "m", "a", "z"]]
    assert Vocabulary.fit(pa.array(["c"]), base=old).values.equals(old.values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_any_vocabulary_is_a_prefix_of_what_it_grows_to(first: list[int], later: list[int]) -> None:
    old = Vocabulary.fit(pa.array(first, pa.int64()))
    grown = Vocabulary.fit(pa.array(later, pa.int64()), base=old)
    assert grown.values.slice(0, len(old.values)).equals(old.values)
    assert sorted(grown.values.to_pylist()) == sorted({*first, *later})
    assert grown.fingerprint_of(len(old)) == old.fingerprint


@pytest.mark.parametrize("first", [-(2**63), -7, 0, 1, 2**63 - 40])
@pytest.mark.parametrize("gap", [False, True])
def test_integers_in_a_row_are_found_without_a_search(first: int, gap: bool) -> None:
    """As those with a gap are by one; what lies outside is unknown, whatever overflows."""
    ids = [first + place + (gap and place > 5) for place in range(39)]
    vocabulary = Vocabulary(pa.array(ids, pa.int64()))
    beyond = [n for n in (first - 1, first + 40, -(2**63), 2**63 - 1, 0) if n not in ids]
    beyond = [n for n in beyond if -(2**63) <= n < 2**63]
    asked = pa.array([ids[5], ids[38]], pa.int64())
    assert vocabulary.encode(asked).tolist() == [6, 39]
    for n in beyond:
        assert vocabulary.encode(pa.array([n, None], pa.int64())).tolist() == [0, 0]
    if gap:
        assert vocabulary.encode(pa.array([first + 6], pa.int64())).tolist() == [0]
