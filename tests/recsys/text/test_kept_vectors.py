"""Vectors by a frozen encoder are those of each sentence, and made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from feature_store.errors import ConfigError
from hf_layout import write_encoder
from recsys.text import kept_vectors as module
from recsys.text.batches import Sentences
from recsys.text.encoder import TextEncoder
from recsys.text.kept_vectors import kept_vectors
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise, tokenizer_of

TABLE = pa.table({"title": ["red shoes", None, "blue hat", "red shoes"]})


def test_they_are_of_length_1_and_0_without_a_text_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_encoder(tmp_path / "bert", "bert")
    config = TextConfig(attributes=("title",), encoder=tmp_path / "bert", max_tokens=20)
    vectors = kept_vectors(tmp_path, TABLE, config)
    tokenizer = tokenizer_of(TABLE, config)
    sentences = Sentences(tokenise(TABLE, tokenizer, config), max_tokens=20, max_items=1)
    encoder = TextEncoder(config, tokenizer).eval()
    with torch.no_grad():
        expected = encoder.vectors(sentences.items(torch.tensor([0, 2])))
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(vectors[[0, 2, 3]], expected[[0, 1, 0]])
    assert not vectors[1].any()

    torch.testing.assert_close(kept_vectors(None, TABLE, config), vectors)
    (file,) = tmp_path.glob("item_vectors-*.npy")
    made = monkeypatch.setattr(module, "item_vectors", None)  # would be called
    assert made is None and torch.equal(kept_vectors(tmp_path, TABLE, config), vectors)
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(kept_vectors(tmp_path, TABLE, config), vectors)
    other = kept_vectors(tmp_path, TABLE.slice(0, 3), config)
    assert len(other) == 3 and len(list(tmp_path.glob("item_vectors-*.npy"))) == 2
    write_encoder(tmp_path / "bert", "bert", initializer_range=0.4)
    assert not np.allclose(kept_vectors(tmp_path, TABLE, config), vectors)


def test_a_folder_without_an_encoder_is_told(tmp_path: Path) -> None:
    config = TextConfig(attributes=("title",), encoder=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"none/tokenizer\.json not found") as caught:
        kept_vectors(tmp_path, TABLE, config)
    assert "\n" not in str(caught.value)
