"""ItemKNN: items that the users of the history's items had too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor

from recsys.data.examples import Examples, Interactions
from recsys.layers.sparse_linear import SparseLinear
from recsys.lists.top_k import stable_top_k
from recsys.options import Chosen, Kind, ModelConfig
from recsys.retrievers.fitted import ScoringRetriever, binary_matrix

_CELLS = 1 << 24  # similarities that are held at once


class SimilarityKind(Kind, ABC):
    """How much two items are alike: a_i a_j sum_u w_u x_ui x_uj, with x [U, N] of 0 and 1."""

    @abstractmethod
    def user_weights(self, lengths: np.ndarray, items: int) -> np.ndarray:
        """w [U], of users who had `lengths` [U] of I `items`."""

    @abstractmethod
    def factors(self, popularity: np.ndarray, items: int, events: int) -> np.ndarray:
        """a [N], of items with `popularity` [N] users; I `items` have `events` together."""


class Cosine(SimilarityKind):
    """w_u = 1 and a_i = n_i^-1/2, n_i being the users of the item."""

    name: Literal["cosine"] = "cosine"

    def user_weights(self, lengths: np.ndarray, items: int) -> np.ndarray:
        """Ones."""
        return np.ones(len(lengths))

    def factors(self, popularity: np.ndarray, items: int, events: int) -> np.ndarray:
        """n_i^-1/2."""
        return popularity**-0.5


class BM25(SimilarityKind):
    """Items as documents of users as terms, as Robertson & Zaragoza, "The probabilistic relevance
    framework: BM25 and beyond", 2009, weigh them: w_u = ln(I / (1 + m_u))^2 and
    a_i = (k1 + 1) / (k1 (1 - b + b n_i / mean n) + 1), for I items of which the user had m_u."""

    name: Literal["bm25"] = "bm25"
    k1: float = Field(1.2, gt=0, description="The higher, the more popular items lose.")
    b: float = Field(0.75, ge=0, le=1, description="Share of the popularity that counts.")

    def user_weights(self, lengths: np.ndarray, items: int) -> np.ndarray:
        """Squared inverse document frequencies."""
        return np.log(items / (1.0 + lengths)) ** 2

    def factors(self, popularity: np.ndarray, items: int, events: int) -> np.ndarray:
        """Weights that fall with popularity."""
        discount = 1 - self.b + self.b * popularity * items / max(1, events)
        return (self.k1 + 1) / (self.k1 * discount + 1)


AnySimilarity = Annotated[Cosine | BM25, Field(discriminator="name"), Chosen()]
_BM25_TRIED = [
    {"name": "bm25", "k1": k1, "b": b} for k1, b in product((1, 4, 12, 40), (0.25, 0.5, 0.9))
]


class ItemKNNConfig(ModelConfig):
    """Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001, as
    lists without ratings are ranked by it: sums of similarities, not weighted means."""

    name: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1, description="Most similar items kept of each item.")
    similarity: AnySimilarity = Field(
        Cosine(),
        description="Of the users that two items share; its name, or a table with its options.",
    )
    shrinkage: float = Field(
        10, ge=0, description="A similarity that rests on n users counts n / (n + shrinkage)."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "neighbours": {"low": 10, "high": 500, "log": True},
        "similarity": {"choices": ["cosine", *_BM25_TRIED]},
        "shrinkage": {"low": 0.0, "high": 100.0},
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

    They are those of the config's kind of similarity, which shrinkage multiplies by
    n_ij / (n_ij + shrinkage), n_ij being the users of both (Bell & Koren, "Improved
    neighborhood-based collaborative filtering", KDD Cup 2007). Of equal similarities
    the lower item row is kept.
    """
    events, lengths = seen.sum(0), seen.sum(1)
    items = max(1, int(np.count_nonzero(events)))
    popularity = np.maximum(events, 1).astype(np.float64)
    user_weights = config.similarity.user_weights(lengths, items)
    factors = config.similarity.factors(popularity, items, events.sum())
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
