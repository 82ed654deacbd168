"""Membership by user, held against Python's sets."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.lists.pairs import NARROW, Pairs, contains

ITEMS = st.lists(st.integers(0, 9), max_size=2 * NARROW)
LISTS = st.lists(ITEMS, min_size=1, max_size=4)


def padded(lists: list[list[int]]) -> torch.Tensor:
    width = max(1, *(len(one) for one in lists))
    return torch.tensor([one + [0] * (width - len(one)) for one in lists], dtype=torch.int32)


@settings(max_examples=200, deadline=None)
@given(LISTS, st.integers(0, 10_000), st.sampled_from([NARROW - 1, NARROW + 1]))
def test_membership_is_that_of_sets(lists: list[list[int]], seed: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 12, (len(lists), width), generator=generator)
    expected = [
        [value in one for value in row] for one, row in zip(lists, values.tolist(), strict=True)
    ]
    # what fills up the lists is no item of theirs
    ask = values.masked_fill(values == 0, 11)
    without_0 = [
        [value in one for value in row] for one, row in zip(lists, ask.tolist(), strict=True)
    ]
    assert contains(padded(lists), ask).tolist() == without_0
    flat = torch.tensor([item for one in lists for item in one], dtype=torch.int32)
    pairs = Pairs.of_lists(flat, torch.tensor([len(one) for one in lists], dtype=torch.int32))
    for found in (pairs, Pairs.of_padded(padded(lists))):
        assert found.contains(values).tolist() == [
            [hit and value != 0 for hit, value in zip(*rows, strict=True)]
            for rows in zip(expected, values.tolist(), strict=True)
        ]
        assert found.counts(len(lists)).tolist() == [sum(i != 0 for i in one) for one in lists]
        assert found.users.tolist() == sorted(found.users.tolist())


def test_large_rows_do_not_overflow() -> None:
    high = 2_000_000_000
    sets = torch.tensor([[high - 1, 1]] * 3, dtype=torch.int32)
    values = torch.tensor([[high - 1, high]] * 3, dtype=torch.int32)
    assert Pairs.of_padded(sets).contains(values).tolist() == [[True, False]] * 3
