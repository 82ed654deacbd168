"""A tokenizer of our own, and those of folders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import ConfigError, DataError
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokens import Tokenizer

TEXTS = ["red shoes", "Red hat", "blue shoes & socks", "hat"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Trained on a few words."""
    return Tokenizer.train(TEXTS, 320)


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.name_of(token) for token in tokenizer.encode([text], 99)[0]]


def test_words_of_the_catalogue_are_tokens_and_all_else_is_made_of_bytes(
    tokenizer: Tokenizer,
) -> None:
    assert words_of(tokenizer, "RED  shoes") == ["\u0120red", "\u0120", "\u0120shoes"]
    assert words_of(tokenizer, "hat") == ["\u0120hat"]
    assert len(words_of(tokenizer, "\U0001f600")) == 5  # a space and four bytes
    assert tokenizer.encode(["red hat blue", ""], 2) == [tokenizer.encode(["red hat"], 9)[0], []]
    names = [tokenizer.name_of(token) for token in range(5)]
    assert names == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    assert (tokenizer.cls, tokenizer.pad, tokenizer.sep, tokenizer.mask) == (0, 1, 2, 4)


def test_the_same_texts_make_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(iter(TEXTS), 320).text == tokenizer.text
    assert len(Tokenizer.train(TEXTS, 300)) <= 300
    assert len(Tokenizer.train([], 300)) == 261


BYTES = Tokenizer.train([], 300)


@given(text=st.text())
def test_every_text_has_tokens_and_no_special_ones(text: str) -> None:
    (tokens,) = BYTES.encode([text], 1000)
    assert all(token > 4 for token in tokens)
    assert bool(tokens) == bool(text)


def test_special_tokens_in_texts_are_texts(tokenizer: Tokenizer) -> None:
    """A title cannot mask or end anything."""
    (tokens,) = tokenizer.encode(["a [MASK] and [CLS][SEP]"], 99)
    assert min(tokens) > 4


def test_words_begin_where_the_tokenizer_marks_them(tokenizer: Tokenizer) -> None:
    (tokens,) = tokenizer.encode(["shoes shoesy"], 99)
    assert tokenizer.word_starts[tokens].tolist() == [True, True, False]
    assert tokenizer.word_starts[:5].tolist() == [True, True, True, False, True]


def test_a_saved_one_is_read_by_us_and_by_transformers(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "t")
    again = Tokenizer.load(tmp_path / "t")
    assert again.text == tokenizer.text and len(again) == len(tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    text = "blue hat \u05e9"
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode([text], 99)[0]
    assert (theirs.cls_token_id, theirs.pad_token_id, theirs.mask_token_id) == (0, 1, 4)


def test_a_wordpiece_tokenizer_marks_what_goes_on(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "shoe", "##s", "red"]
    model = tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.enable_truncation(2)
    made.enable_padding(length=8)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.cls, tokenizer.pad) == (2, 0)
    assert tokenizer.encode(["red shoes shoe", "red"], 9) == [[7, 5, 6, 5], [7]]
    assert np.flatnonzero(~tokenizer.word_starts).tolist() == [6]


def test_what_is_no_tokenizer_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nowhere/tokenizer.json not found: .* layout of Hugging"
    ):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer.json is no tokenizer: "):
        Tokenizer.load(tmp_path)
    bare = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[CLS]": 0}, unk_token="[CLS]"))
    bare.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=r"no token \[PAD\] or <pad>"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("module", ["tokenizers", "transformers"])
def test_what_is_not_installed_is_named_with_what_brings_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"need {module}, .*: pip install 'recsys\[text\]'"):
        if module == "tokenizers":
            Tokenizer.train([], 300)
        else:
            TextEncoder(TextConfig(), BYTES)
