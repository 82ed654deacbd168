"""The kinds of indices. A new one is its file, its options and a line in the dict below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.serving.index.base import Index, Queries
from recsys.serving.index.exact import ExactIndex
from recsys.serving.index.faiss import FaissIndex
from recsys.serving.index.hnsw import HNSWIndex
from recsys.serving.index.ivf import IVFIndex
from recsys.serving.index.options import (
    ExactConfig,
    FaissConfig,
    HNSWConfig,
    IndexConfig,
    IVFConfig,
    PQConfig,
    PrefixConfig,
)
from recsys.serving.index.pq import PQIndex
from recsys.serving.index.prefix import PrefixIndex

INDICES: dict[type[BaseModel], type[Index]] = {
    ExactConfig: ExactIndex,
    IVFConfig: IVFIndex,
    PQConfig: PQIndex,
    HNSWConfig: HNSWIndex,
    PrefixConfig: PrefixIndex,
    FaissConfig: FaissIndex,
}


def build_index(vectors: Tensor, space: str, config: IndexConfig) -> Index:
    """An index over item vectors [N, D], or places [N] of the 1 in unit vectors.

    Raises ConfigError where the items are unit vectors and the index is not exact, or where it
    cannot be made of them.
    """
    if vectors.dim() == 1 and not isinstance(config, ExactConfig):
        raise ConfigError(
            f"export.index.kind = {config.kind!r} searches item vectors, and this retriever scores "
            "all items without them: set export.index.kind = 'exact'"
        )
    return INDICES[type(config)].build(vectors, space, config)


def load_index(
    file: Callable[[str], Path], vectors: Tensor, space: str, config: IndexConfig
) -> Index:
    """The index that was saved; `file` gives the path of a name.

    Raises DataError when it cannot be read.
    """
    return INDICES[type(config)].load(file, vectors, space, config)


def recall_against_exact(index: Index, queries: Queries, k: int = 100) -> float:
    """Share of the exact top k of `queries` that the index finds, whatever their weights."""
    k = min(k, len(index.vectors))
    alike = queries._replace(weights=torch.ones(queries.vectors.shape[:2]))
    _, exact = ExactIndex(index.vectors, index.space).search(alike, k, allowed=index.live)
    _, nearest = index.search(alike, k)
    rows = torch.arange(len(exact)).unsqueeze(1) * (len(index.vectors) + 1)
    return float(torch.isin(exact + rows, nearest + rows).double().mean())
