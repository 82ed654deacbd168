"""Whatever stands in a catalogue becomes vectors: from raw texts to the end, never a crash."""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.text.batches import Sentences
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise
from recsys.text.tokens import Tokenizer
from recsys.text.vectors import item_vectors

CONFIG = TextConfig(max_tokens=40, max_items=3, width=8, layers=1, window=4)
TEXTS = (
    st.none()
    | st.text()
    | st.sampled_from(
        [
            "",
            "\x00",
            "&#0;" * 9,
            "\u202e\u05d0\u05d1",
            "\U0001f469\u200d\U0001f680" * 50,
            "x" * 100_000,
        ]
    )
)


@cache
def parts() -> tuple[Tokenizer, TextEncoder]:
    tokenizer = Tokenizer.train(["red shoes"] * 3, 300)
    return tokenizer, TextEncoder(CONFIG, tokenizer)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(
        st.tuples(TEXTS, st.none() | st.lists(TEXTS, max_size=3), st.none() | st.floats()),
        min_size=1,
        max_size=5,
    )
)
def test_any_catalogue_has_vectors(
    rows: list[tuple[str | None, list[str | None] | None, float | None]],
) -> None:
    titles, kinds, prices = zip(*rows, strict=True)
    table = pa.table(
        {
            "title": pa.array(titles, pa.string()),
            "kinds": pa.array(kinds, pa.list_(pa.string())),
            "price": pa.array(prices, pa.float64()),
        }
    )
    tokenizer, encoder = parts()
    items = tokenise(table, tokenizer, CONFIG)
    sentences = Sentences(items, max_tokens=CONFIG.max_tokens, max_items=CONFIG.max_items)
    vectors = item_vectors(encoder, sentences, torch.arange(len(rows)))
    assert vectors.shape == (len(rows), 8) and bool(vectors.isfinite().all())
    history = torch.arange(len(rows))[None]
    assert bool(encoder.vectors(sentences.sequences(history)).isfinite().all())
