"""Attributes as tokens: names, values, what is cut and what is absent; kept for the next time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys.text.tokenise as module
from feature_store.errors import DataError
from recsys.text.cleaning import clean
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise, tokenised, tokenizer_of
from recsys.text.tokenised import NAME, VALUE, TokenisedItems
from recsys.text.tokens import Tokenizer

CONFIG = TextConfig(attributes=("title", "kinds"), vocabulary=300, tokens_per_attribute=5)
TABLE = pa.table(
    {
        "title": [None, "red shoes", "", "red shoes", "red red red red red red"],
        "kinds": [None, ["shoes"], ["hat"], None, []],
    }
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """All words of the table are tokens."""
    texts = ["title", "kinds", "red", "shoes", "hat"] * 3
    return Tokenizer.train(texts, 300)


def read(items: TokenisedItems, tokenizer: Tokenizer, item: int) -> list[str]:
    span = slice(items.offsets[item], items.offsets[item + 1])
    return [tokenizer.name_of(token).removeprefix("\u0120") for token in items.tokens[span]]


def test_a_sentence_is_names_and_values_by_hand(tokenizer: Tokenizer) -> None:
    items = tokenise(TABLE, tokenizer, CONFIG)
    assert [read(items, tokenizer, item) for item in range(len(items))] == [
        [],
        ["title", "red", "shoes", "kinds", "shoes"],
        ["kinds", "hat"],
        ["title", "red", "shoes"],
        ["title", "red", "red", "red", "red"],
    ]
    assert items.types.tolist() == [
        *(NAME, VALUE, VALUE, NAME, VALUE),
        *(NAME, VALUE),
        *(NAME, VALUE, VALUE),
        *(NAME, VALUE, VALUE, VALUE, VALUE),
    ]
    assert items.lengths.tolist() == [0, 5, 2, 3, 5] and items.sep is None


def test_options_change_what_is_read(tokenizer: Tokenizer) -> None:
    def sentence(**options: Any) -> list[str]:
        config = CONFIG.model_copy(update=options)
        return read(tokenise(TABLE, tokenizer, config), tokenizer, 1)

    assert sentence(names=False) == ["red", "shoes", "shoes"]
    assert sentence(attributes_per_item=1) == ["title", "red", "shoes"]
    assert sentence(tokens_per_attribute=2) == ["title", "red", "kinds", "shoes"]
    assert sentence(attributes=("kinds", "title")) == ["kinds", "shoes", "title", "red", "shoes"]
    assert tokenise(TABLE, tokenizer, CONFIG.model_copy(update={"separator": True})).sep == 2
    assert sentence(attributes=()) == sentence()  # all columns, as they stand
    # the first that it has: an item without a title is read by its kinds
    first = tokenise(TABLE, tokenizer, CONFIG.model_copy(update={"attributes_per_item": 1}))
    assert read(first, tokenizer, 2) == ["kinds", "hat"]


@cache
def of_bytes() -> Tokenizer:
    """Every byte is a token, and nothing else."""
    return Tokenizer.train([], 300)


@settings(max_examples=40, deadline=None)
@given(
    titles=st.lists(st.none() | st.text(max_size=12), max_size=8),
    names=st.booleans(),
    longest=st.integers(1, 6),
)
def test_all_values_at_once_are_those_of_a_plain_loop(
    titles: list[str | None], names: bool, longest: int
) -> None:
    tokenizer = of_bytes()
    config = TextConfig(attributes=("title",), names=names, tokens_per_attribute=longest)
    items = tokenise(pa.table({"title": pa.array(titles, pa.string())}), tokenizer, config)
    name = tokenizer.encode(["title"], 99)[0] if names else []
    for item, title in enumerate(titles):
        text = clean(title or "")
        expected = (name + tokenizer.encode([text], 99)[0])[:longest] if text else []
        assert items.tokens[items.offsets[item] : items.offsets[item + 1]].tolist() == expected
    assert len(items) == len(titles)


def test_a_tokenizer_is_trained_on_what_is_read_and_names_are_words_of_it() -> None:
    many = pa.table({"title": ["zebra"] * 5, "kinds": [["x"]] * 5, "other": ["quagga"] * 5})
    trained = tokenizer_of(many, CONFIG)
    assert len(trained.encode(["title"], 9)[0]) == len(trained.encode(["zebra"], 9)[0]) == 1
    assert len(trained.encode(["quagga"], 9)[0]) > 1


def test_what_was_tokenised_is_not_tokenised_again_until_something_changes(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TextConfig] = []
    once = tokenise
    monkeypatch.setattr(module, "tokenise", lambda t, k, c: made.append(c) or once(t, k, c))
    path = tmp_path / "items.parquet"

    def times(table: pa.Table, tokenizer: Tokenizer, **options: Any) -> int:
        before = len(made)
        config = CONFIG.model_copy(update=options)
        kept, anew = tokenised(path, table, tokenizer, config), once(table, tokenizer, config)
        for part in ("tokens", "types", "offsets"):
            assert getattr(kept, part).dtype == getattr(anew, part).dtype
            assert np.array_equal(getattr(kept, part), getattr(anew, part))
        assert (kept.cls, kept.pad, kept.sep) == (anew.cls, anew.pad, anew.sep)
        return len(made) - before

    assert [times(TABLE, tokenizer), times(TABLE, tokenizer)] == [1, 0]
    assert times(pa.concat_tables([TABLE[:2], TABLE[2:]]), tokenizer) == 0  # the same in chunks
    assert times(TABLE.append_column("other", pa.array([1] * 5)), tokenizer) == 0  # not read
    assert times(TABLE, tokenizer, width=128) == 0  # of the encoder
    for change in ("names", "separator"):
        value = not getattr(CONFIG, change)
        times(TABLE, tokenizer)
        assert [times(TABLE, tokenizer, **{change: value}) for _ in range(2)] == [1, 0]
    assert times(TABLE, tokenizer, tokens_per_attribute=2) == 1
    assert times(TABLE, tokenizer, attributes_per_item=1) == 1
    assert times(TABLE, tokenizer, attributes=("kinds", "title")) == 1
    assert times(TABLE[1:], tokenizer) == 1
    assert times(TABLE[1:], Tokenizer.train(["red"] * 3, 300)) == 1
    path.write_bytes(path.read_bytes()[:-9])
    assert times(TABLE, tokenizer) == 1  # half a file


def test_only_what_was_saved_is_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    items = tokenise(TABLE, tokenizer, CONFIG)
    items.save(tmp_path / "items.parquet")
    again = TokenisedItems.load(tmp_path / "items.parquet")
    assert again.tokens.tolist() == items.tokens.tolist() and again.pad == items.pad
    with pytest.raises(DataError, match="no such file"):
        TokenisedItems.load(tmp_path / "none.parquet")
    pa.parquet.write_table(TABLE, tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other.parquet holds no tokenised items"):
        TokenisedItems.load(tmp_path / "other.parquet")
