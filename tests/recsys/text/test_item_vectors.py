"""Vectors of items: the same as one by one, each distinct sentence encoded once."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from recsys.text.batches import Sentences, TextBatch
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise, tokenizer_of
from recsys.text.vectors import item_vectors


def test_each_distinct_sentence_is_encoded_once_beside_others_of_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    titles = [None, "red shoes", "hat", "red shoes", "", "a b c d e f g h i j k"]
    table = pa.table({"title": titles})
    config = TextConfig(attributes=("title",), max_tokens=10, width=8, window=4, dropout=0.5)
    tokenizer = tokenizer_of(table, config)
    sentences = Sentences(tokenise(table, tokenizer, config), max_tokens=10, max_items=50)
    encoder = TextEncoder(config, tokenizer)
    rows = torch.tensor([3, 5, 1, 2, 4, 0])
    encoder.eval()
    one_by_one = torch.cat([encoder.vectors(sentences.items(row[None])) for row in rows])
    encoder.train()
    shapes = []
    vectors_of = TextEncoder.vectors

    def counted(self: TextEncoder, batch: TextBatch) -> torch.Tensor:
        shapes.append(tuple(batch.tokens.shape))
        return vectors_of(self, batch)

    monkeypatch.setattr(TextEncoder, "vectors", counted)
    vectors = item_vectors(encoder, sentences, rows, tokens_per_batch=20)
    torch.testing.assert_close(vectors, one_by_one)
    assert not vectors.requires_grad and encoder.training
    assert sum(count for count, _ in shapes) == 4  # of six items
    assert all(count * length <= 20 for count, length in shapes)
    assert item_vectors(encoder, sentences, rows[:0]).shape == (0, 8)
