"""Vectors of items by a frozen encoder, made once for the same texts and weights."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from feature_store.durable import written
from recsys.text.batches import Sentences
from recsys.text.encoder import TextEncoder
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise, tokenizer_of
from recsys.text.tokenised import TokenisedItems
from recsys.text.vectors import item_vectors

WEIGHTS = "model.safetensors"


def kept_vectors(folder: Path | None, table: pa.Table, config: TextConfig) -> Tensor:
    """Vectors [N, S] of length 1 of the items of a table, 0 of those without texts: from a file in
    `folder` where it holds those of the same sentences and encoder, else they are written there;
    without a folder they are made each time.

    Raises ConfigError or DataError for an encoder that cannot be opened.
    """
    assert config.encoder is not None
    tokenizer = tokenizer_of(table, config)
    items = tokenise(table, tokenizer, config)
    encoder = TextEncoder(config, tokenizer)  # an encoder that cannot be opened says so first
    path = folder and folder / f"item_vectors-{_fingerprint(items, config.encoder)}.npy"
    if path is not None:
        with suppress(OSError, ValueError):  # there is none, or half of one
            return torch.from_numpy(np.load(path))
    sentences = Sentences(items, max_tokens=config.max_tokens, max_items=config.max_items)
    rows = torch.arange(len(items.offsets) - 1)
    vectors = F.normalize(item_vectors(encoder, sentences, rows).float(), dim=1)
    vectors[torch.from_numpy(np.diff(items.offsets) == 0)] = 0
    if path is not None:
        with written(path) as file:
            np.save(file, vectors.numpy())
    return vectors


def _fingerprint(items: TokenisedItems, encoder: Path) -> str:
    """Sixteen hex digits over sentences and weights."""
    digest = hashlib.sha256((encoder / WEIGHTS).read_bytes())
    for part in (items.tokens, items.types, items.offsets):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
