"""Where a small encoder begins: by hand, and with planted words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recsys.text.batches import TextBatch
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenised import VALUE, TokenisedItems
from recsys.text.tokens import Tokenizer
from recsys.text.word_vectors import word_vectors


def items_of(sentences: list[list[int]]) -> TokenisedItems:
    tokens = np.array([token for sentence in sentences for token in sentence], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, sentences)])
    return TokenisedItems(tokens, np.full(len(tokens), VALUE, np.int8), offsets, cls=0, pad=1)


def test_rare_words_weigh_more_by_the_formula() -> None:
    """Token 7 is in all of four items, 9 in two, 8 in one, which has it twice; the fifth item is
    like the first and does not count again."""
    told = word_vectors(items_of([[7, 9], [7, 8, 8], [7, 9, 9], [7], [7, 9]]), 2)
    assert told.tokens.tolist() == [7, 8, 9]
    weights = np.array([0, math.log(5 / 2), math.log(5 / 3)]) + 1e-3
    mean = (4 * weights[0] + 2 * weights[1] + 3 * weights[2]) / 9
    np.testing.assert_allclose(told.weights, weights / mean, rtol=1e-6)
    assert told.vectors.shape == (3, 2) and told.vectors.dtype == np.float32


def test_words_of_the_same_items_lie_close() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(5, 45).reshape(4, 10)  # words that appear together
    sentences = [rng.choice(groups[n % 4], 5, replace=False).tolist() for n in range(200)]
    told = word_vectors(items_of(sentences), 4)
    np.testing.assert_allclose(np.linalg.norm(told.vectors, axis=1), 1, rtol=1e-5)
    cosines = (told.vectors @ told.vectors.T).reshape(4, 10, 4, 10)
    assert min(cosines[n, :, n].min() for n in range(4)) > 0.8
    assert max(cosines[n, :, m].max() for n in range(4) for m in range(4) if n != m) < 0.3


@pytest.mark.parametrize("sentences", [[], [[]], [[7]], [[7], [7]], [[7, 8], []]])
def test_there_may_be_next_to_no_words(sentences: list[list[int]]) -> None:
    told = word_vectors(items_of(sentences), 8)
    assert np.isfinite(told.vectors).all() and np.isfinite(told.weights).all()
    assert told.vectors.shape == (len(told.tokens), 8)


def encoder_and_batch() -> tuple[TextEncoder, TextBatch]:
    """Of one history of two items with two tokens each, 9 and 8 of the newest, and a shorter."""
    tokenizer = Tokenizer.train(["red shoes", "blue hat"], 300)
    config = TextConfig(max_tokens=12, max_items=3, width=8, layers=1, window=4, dropout=0)
    tokens = torch.tensor([[tokenizer.cls, 9, 8, 7, 6], [tokenizer.cls, 9, 1, 1, 1]])
    places = torch.tensor([[0, 1, 1, 2, 2], [0, 1, 0, 0, 0]])
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    return TextEncoder(config, tokenizer).eval(), TextBatch(tokens, mask * VALUE, places, mask)


@torch.no_grad()
def test_tokens_weigh_as_they_tell_and_newer_items_more() -> None:
    encoder, batch = encoder_and_batch()
    encoder.begin_with(word_vectors(items_of([[9, 8], [9, 7], [9, 6]]), 8))
    common, rare = 1e-3, math.log(2) + 1e-3
    mean = (common + rare) / 2
    of_tokens = torch.tensor([mean, common, rare, rare, rare]) / mean  # as it was of [CLS]
    weights = of_tokens * torch.tensor([1, 1, 1, 0.25, 0.25])  # 1 / n^2
    hidden = encoder(batch)
    expected = (hidden[0] * weights.unsqueeze(1)).sum(0) / weights.sum()
    torch.testing.assert_close(encoder.pool(hidden, batch)[0], expected)


@torch.no_grad()
def test_vectors_of_words_take_the_place_of_random_ones_at_their_length() -> None:
    encoder, _ = encoder_and_batch()
    before = encoder.embedding.weight.clone()
    told = word_vectors(items_of([[9, 8], [9, 7], [9, 6, 5]]), 8)
    encoder.begin_with(told)
    length = before.norm(dim=1).mean()
    torch.testing.assert_close(
        encoder.embedding.weight[told.tokens], torch.from_numpy(told.vectors) * length
    )
    others = np.setdiff1d(np.arange(len(before)), told.tokens)
    assert torch.equal(encoder.embedding.weight[others], before[others])
