"""Hashing: the same rows forever, on every shape, spread evenly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from recsys.embeddings.hashing import VERSION, hash_rows, row_map, salt_of

IDS = st.integers(-(2**63), 2**63 - 1)
MASK = (1 << 64) - 1


def splitmix64(id: int, salt: int) -> int:
    """The published algorithm on Python's unbounded integers."""
    x = (id * 0x9E3779B97F4A7C15 + salt) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_rows_of_saved_models_stay_where_they_are() -> None:
    """Raise hashing.VERSION when this must change: bundles and checkpoints depend on it."""
    ids = torch.tensor([0, 1, 2, -1, 2**62, -(2**63)])
    assert VERSION == 3
    assert salt_of("item", 0) == -5583169307164983709
    rows = hash_rows(ids, salt_of("item", 0), 1_000_003).tolist()
    assert rows == [129287, 698133, 89906, 252588, 312617, 643207]


@pytest.mark.parametrize("rows", [1_000_003, 2**62])
def test_unknown_has_no_id_of_a_zero_based_log_for_company(rows: int) -> None:
    """Gowalla's and HEP-TH's ids begin with 0, whose key is 0."""
    found = row_map(torch.arange(1000), salt_of("item"), rows)
    assert torch.equal(found[1:], hash_rows(torch.arange(1000), salt_of("item"), rows))
    assert found[0] not in found[1:]


@settings(max_examples=200, deadline=None)
@given(IDS, IDS, st.integers(1, 2**40))
def test_it_is_splitmix64(id: int, salt: int, rows: int) -> None:
    (row,) = hash_rows(torch.tensor([id]), salt, rows).tolist()
    assert row == (splitmix64(id, salt) >> 1) % rows  # the top 63 bits: never negative
    assert 0 <= row < rows


def test_published_values_of_splitmix64() -> None:
    """The first outputs for seed 1234567, as listed by Rosetta Code and other implementations."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = hash_rows(torch.tensor([1, 2, 3]), 1234567, 2**63 - 1)
    assert found.tolist() == [(value >> 1) % (2**63 - 1) for value in published]


@pytest.mark.parametrize("first", [0, 10**12, -5000])
def test_consecutive_ids_fill_rows_evenly(first: int) -> None:
    rows = hash_rows(torch.arange(first, first + 100_000), salt_of("x"), 997)
    counts = torch.bincount(rows, minlength=997)
    assert chisquare(counts.numpy()).pvalue > 1e-4


def test_salts_are_independent() -> None:
    ids = torch.arange(100_000)
    first, second = (hash_rows(ids, salt_of("item", probe), 16) for probe in range(2))
    together = torch.bincount(first * 16 + second, minlength=256)
    assert chisquare(together.numpy()).pvalue > 1e-4
    salts = [salt_of("a", 1), salt_of("a", 11), salt_of("a1", 1), salt_of("a1"), salt_of("a", "1")]
    assert len(set(salts)) == 4  # "a", 1 and "a", "1" read alike


def test_the_shape_of_ids_does_not_matter() -> None:
    ids = torch.arange(24, dtype=torch.int32)
    flat = hash_rows(ids, 5, 10)
    assert torch.equal(hash_rows(ids.view(2, 3, 4), 5, 10), flat.view(2, 3, 4))
    assert torch.equal(hash_rows(ids.view(4, 6).T, 5, 10), flat.view(4, 6).T)
    assert hash_rows(ids[:0], 5, 10).shape == (0,)
