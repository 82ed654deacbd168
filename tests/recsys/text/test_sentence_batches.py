"""Sequences of sentences, by hand and beside a plain loop; batches by length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.text.batches import Sentences, by_length
from recsys.text.tokenised import CLS, NAME, PADDING, VALUE, TokenisedItems

BEGIN, PAD, SEP = 0, 1, 2


def items_of(
    sentences: list[list[int]], names: int = 1, *, sep: int | None = None
) -> TokenisedItems:
    """Items whose first `names` tokens are of a name."""
    return TokenisedItems(
        np.array([token for sentence in sentences for token in sentence], np.int32),
        np.array([NAME if i < names else VALUE for s in sentences for i in range(len(s))], np.int8),
        np.cumsum([0, *map(len, sentences)]),
        cls=BEGIN,
        pad=PAD,
        sep=sep,
    )


def test_the_newest_item_comes_first_with_its_types_and_positions() -> None:
    items = items_of([[], [10, 11], [20, 21, 22], [30]])
    batch = Sentences(items, max_tokens=8, max_items=50).sequences(
        torch.tensor([[1, 2, 0], [3, 1, 2], [0, 0, 0]])
    )
    assert batch.tokens.tolist() == [
        [BEGIN, 20, 21, 22, 10, 11, PAD],
        [BEGIN, 20, 21, 22, 10, 11, 30],
        [BEGIN, PAD, PAD, PAD, PAD, PAD, PAD],
    ]
    assert batch.types.tolist() == [
        [CLS, NAME, VALUE, VALUE, NAME, VALUE, PADDING],
        [CLS, NAME, VALUE, VALUE, NAME, VALUE, NAME],
        [CLS, *[PADDING] * 6],
    ]
    assert batch.item_positions.tolist() == [
        [0, 1, 1, 1, 2, 2, 0],
        [0, 1, 1, 1, 2, 2, 3],
        [0] * 7,
    ]
    assert batch.lengths.tolist() == [6, 7, 1] and len(batch) == 3


def test_the_oldest_are_cut_off_and_the_separator_ends_what_is_left() -> None:
    items = items_of([[], [10, 11], [20, 21, 22], [30]], sep=SEP)
    sentences = Sentences(items, max_tokens=6, max_items=2)
    batch = sentences.sequences(torch.tensor([[3, 1, 2], [3, 1, 1], [0, 0, 3]]))
    assert batch.tokens.tolist() == [
        [BEGIN, 20, 21, 22, 10, SEP],
        [BEGIN, 10, 11, 10, 11, SEP],
        [BEGIN, 30, SEP, PAD, PAD, PAD],
    ]
    assert batch.item_positions[0].tolist() == [0, 1, 1, 1, 2, 2]
    assert batch.types[2].tolist() == [CLS, NAME, VALUE, *[PADDING] * 3]
    alone = sentences.items(torch.tensor([0, 2]))
    assert alone.tokens.tolist() == [[BEGIN, SEP, PAD, PAD, PAD], [BEGIN, 20, 21, 22, SEP]]
    assert sentences.lengths(torch.tensor([0, 2])).tolist() == alone.lengths.tolist() == [2, 5]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    histories=st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=4),
    max_tokens=st.integers(3, 9),
    max_items=st.integers(1, 3),
    sep=st.sampled_from([None, SEP]),
    length=st.sampled_from([None, 9]),
)
def test_all_tokens_at_once_are_those_of_a_plain_loop(
    lengths: list[int],
    histories: list[list[int]],
    max_tokens: int,
    max_items: int,
    sep: int | None,
    length: int | None,
) -> None:
    sentences = [[], *([10 * (row + 1) + i for i in range(n)] for row, n in enumerate(lengths))]
    histories = [[row % len(sentences) for row in history] for history in histories]
    expected = []
    for history in histories:
        newest_first = [row for row in reversed(history) if row][:max_items]
        tokens = [
            (token, NAME if i < 1 else VALUE, place)
            for place, row in enumerate(newest_first, start=1)
            for i, token in enumerate(sentences[row])
        ]
        if sep is not None:
            last = max((place for place, row in enumerate(newest_first, start=1)), default=0)
            tokens = tokens[: max_tokens - 2]
            expected.append(([(BEGIN, CLS, 0), *tokens], last))
        else:
            expected.append(([(BEGIN, CLS, 0), *tokens[: max_tokens - 1]], 0))
    batch = Sentences(
        items_of(sentences, sep=sep), max_tokens=max_tokens, max_items=max_items
    ).sequences(torch.tensor(histories), length)
    for row, (wanted, _) in enumerate(expected):
        mask = batch.mask[row]
        parts = (batch.tokens, batch.types, batch.item_positions)
        made = list(zip(*(part[row][mask].tolist() for part in parts), strict=True))
        if sep is not None:
            assert made.pop()[:2] == (SEP, VALUE)
        assert made == wanted
        assert batch.tokens[row][~mask].eq(PAD).all() and batch.types[row][~mask].eq(PADDING).all()
        assert batch.item_positions[row][~mask].eq(0).all()
    longest = max(len(wanted) for wanted, _ in expected) + (sep is not None)
    assert batch.tokens.shape == (len(histories), length or longest)


@given(lengths=st.lists(st.integers(0, 50), max_size=40), most=st.integers(1, 200))
def test_batches_hold_all_once_and_no_more_tokens_than_are_allowed(
    lengths: list[int], most: int
) -> None:
    batches = by_length(np.array(lengths, np.int64), most)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= most
    in_order = [lengths[place] for batch in batches for place in batch]
    assert in_order == sorted(lengths, reverse=True)


def test_equal_sentences_are_one_unless_their_types_differ() -> None:
    items = items_of([[], [5, 6], [5], [5, 6], []])
    assert items.first_like.tolist() == [0, 1, 2, 1, 0]
    other = TokenisedItems(items.tokens, np.full(5, VALUE, np.int8), items.offsets, BEGIN, PAD)
    assert other.first_like.tolist() == [0, 1, 2, 1, 0]
    of_names = np.array([NAME, VALUE, NAME, VALUE, VALUE], np.int8)
    apart = TokenisedItems(items.tokens, of_names, items.offsets, BEGIN, PAD)
    assert apart.first_like.tolist() == [0, 1, 2, 3, 0]
    distinct, of_row = Sentences(items, max_tokens=8, max_items=2).distinct(torch.tensor([3, 2, 1]))
    assert distinct.tolist() == [1, 2] and of_row.tolist() == [0, 1, 0]


@pytest.mark.parametrize("sep", [None, SEP])
def test_items_without_any_token_make_sequences(sep: int | None) -> None:
    sentences = Sentences(items_of([[], []], sep=sep), max_tokens=4, max_items=2)
    batch = sentences.sequences(torch.tensor([[1, 1]]))
    assert batch.tokens.tolist() == [[BEGIN] if sep is None else [BEGIN, SEP]]
