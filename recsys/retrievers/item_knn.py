"""ItemKNN: items that the users of the history's items had too."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor

from recsys.data.examples import Examples, Interactions
from recsys.layers.sparse_linear import SparseLinear
from recsys.lists.top_k import stable_top_k
from recsys.options import ModelConfig
from recsys.retrievers.fitted import ScoringRetriever, binary_matrix

_CELLS = 1 << 24  # similarities that are held at once


class ItemKNNConfig(ModelConfig):
    """Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001, as
    lists without ratings are ranked by it: sums of similarities, not weighted means."""

    name: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1, description="Most similar items kept of each item.")
    similarity: Literal["cosine", "bm25"] = "cosine"
    shrinkage: float = Field(
        10, ge=0, description="A similarity that rests on n users counts n / (n + shrinkage)."
    )
    k1: float = Field(1.2, gt=0, description="BM25: the higher, the more popular items lose.")
    b: float = Field(0.75, ge=0, le=1, description="BM25: share of the popularity that counts.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "neighbours": {"low": 10, "high": 500, "log": True},
        "similarity": {"choices": ["cosine", "bm25"]},
        "shrinkage": {"low": 0.0, "high": 100.0},
        "k1": {"low": 0.1, "high": 200.0, "log": True},
        "b": {"low": 0.0, "high": 1.0},
    }


class ItemKNN(ScoringRetriever):
    """An item's score is the sum of its similarities to those of its nearest neighbours that
    the history holds."""

    Config = ItemKNNConfig
    config: ItemKNNConfig

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Find every item's neighbours."""
        self.similarities = SparseLinear(
            nearest_neighbours(binary_matrix(interactions, self.items), self.config).T
        )

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N]."""
        return self.similarities(histories)


def nearest_neighbours(seen: sp.csr_array, config: ItemKNNConfig) -> sp.csr_array:
    """Similarities [N, N], in row i those of item i to its nearest neighbours, never itself.

    With x [U, N] of 0 and 1, s_ij = a_i a_j sum_u w_u x_ui x_uj, where

    - cosine: w_u = 1 and a_i = n_i^-1/2, n_i being the users of the item;
    - bm25: items as documents of users as terms, as Robertson & Zaragoza, "The probabilistic
      relevance framework: BM25 and beyond", 2009, weigh them: w_u = ln(I / (1 + m_u))^2 and
      a_i = (k1 + 1) / (k1 (1 - b + b n_i / mean n) + 1), for I items of which the user had m_u.

    Shrinkage multiplies by n_ij / (n_ij + shrinkage), n_ij being the users of both (Bell & Koren,
    "Improved neighborhood-based collaborative filtering", KDD Cup 2007). Of equal similarities
    the lower item row is kept.
    """
    events, lengths = seen.sum(0), seen.sum(1)
    items = max(1, np.count_nonzero(events))
    popularity = np.maximum(events, 1).astype(np.float64)
    if config.similarity == "cosine":
        user_weights = np.ones(len(lengths))
        factors = popularity**-0.5
    else:
        user_weights = np.log(items / (1.0 + lengths)) ** 2
        discount = 1 - config.b + config.b * popularity * items / max(1, events.sum())
        factors = (config.k1 + 1) / (config.k1 * discount + 1)
    users_of = seen.T.tocsr().astype(np.float64)
    weighted = sp.diags_array(user_weights) @ seen
    blocks = []
    rows = max(1, _CELLS // seen.shape[1])
    for start in range(0, seen.shape[1], rows):
        block = users_of[start : start + rows]
        products = block @ weighted
        if config.shrinkage:
            trust = block @ seen  # users of both
            trust.data /= trust.data + config.shrinkage
            products = products.multiply(trust)
        of_rows = sp.diags_array(factors[start : start + rows])
        similarities = (of_rows @ products @ sp.diags_array(factors)).toarray()
        np.fill_diagonal(similarities[:, start:], 0)
        best = stable_top_k(torch.from_numpy(similarities.astype(np.float32)), config.neighbours)
        values, columns = (tensor.numpy() for tensor in best)
        kept = values > 0
        coordinates = (kept.nonzero()[0], columns[kept])
        blocks.append(sp.csr_array((values[kept], coordinates), shape=products.shape))
    return sp.vstack(blocks, format="csr")
