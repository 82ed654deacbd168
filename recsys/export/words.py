"""What a retriever knows of words -> the files of a bundle by which it tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from feature_store.vocabulary import Vocabulary
from recsys.data.examples import Examples
from recsys.export.programs import on_plain_tables, save_program
from recsys.retrievers.base import VectorRetriever
from recsys.serving.tfidf_words import WORDS
from recsys.serving.vector_words import DESCRIBED, SPACE


class Described(nn.Module):
    """A retriever's item side, on plain tables, by vectors of texts that are given."""

    def __init__(self, retriever: VectorRetriever) -> None:
        super().__init__()
        self.retriever: VectorRetriever = on_plain_tables(retriever)

    def forward(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Item rows [n] and vectors of texts [n, S] -> vectors [n, D] as they are compared."""
        return self.retriever.described(rows, vectors)


def write_words(
    retriever: VectorRetriever, examples: Examples, folder: Path
) -> Literal["sum", "vectors"] | None:
    """Write them into the folder of a part; returns what its record says, None where there are
    none."""
    names = retriever.word_names()
    if names is not None:
        _save(names, folder)
        return "sum"
    space = retriever.word_space(examples)
    if space is None:
        return None
    _save(space.words, folder)
    weights = space.weights
    parts = {"indptr": weights.indptr, "indices": weights.indices, "data": weights.data}
    np.savez(folder / SPACE, directions=space.directions, **parts)
    rows = torch.zeros(2, dtype=torch.int64)
    arguments = (rows, torch.zeros(2, space.directions.shape[1]))
    free = {0: torch.export.Dim("items", min=1, max=1 << 20)}
    with torch.no_grad():
        save_program(Described(retriever), arguments, (free, free), folder / DESCRIBED)
    return "vectors"


def _save(words: tuple[str, ...], folder: Path) -> None:
    Vocabulary(pa.array(words, pa.string())).save(folder / WORDS)
