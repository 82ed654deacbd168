"""EASE: a linear map from histories to items, solved at once."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from scipy.linalg import lapack
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.data.examples import Examples, Interactions
from recsys.model import Cost
from recsys.options import ModelConfig
from recsys.retrievers.fitted import ScoringRetriever, binary_matrix

_BLOCK = 512  # rows of the Gram matrix that are computed at once
_SOON = 1_500  # items of which nobody waits for the inverse
_TRIES = 3  # of which the fastest tells: others wait for whatever else the machine does


class EASEConfig(ModelConfig):
    """Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019."""

    name: Literal["ease"] = "ease"
    l2: float = Field(500, gt=0, description="lambda of the paper: regularisation.")
    max_items: int = Field(20_000, ge=1, description="Refuse catalogues that need more memory.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "l2": {"low": 1.0, "high": 10_000.0, "log": True}
    }


class EASE(ScoringRetriever):
    """Scores are x B, where B is dense and has no entry from an item to itself.

    It has rows and columns for the n items with training events; the others score 0.
    """

    Config = EASEConfig
    config: EASEConfig
    rows: Tensor
    weights: Tensor

    def fit_cost(self, interactions: Interactions) -> Cost | None:
        """Of the inversion, from the speed at which a small matrix is inverted here."""
        n = len(np.unique(interactions.items.numpy()))
        if not _SOON < n <= self.config.max_items:
            return None
        seconds = min(_seconds_to_invert(_SOON) for _ in range(_TRIES)) * (n / _SOON) ** 3
        return Cost(seconds, f"whose matrix of {n:,} x {n:,} items takes {12 * n**2 / 1e9:.1f} GB")

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Invert the Gram matrix.

        Raises ConfigError when more items than `max_items` have training events.
        """
        seen = binary_matrix(interactions, self.items)
        trained = np.flatnonzero(seen.sum(0))
        n = len(trained)
        if n > self.config.max_items:
            raise ConfigError(
                f"ease needs {12 * n**2 / 1e9:.1f} GB of memory for {n:,} items with training "
                f"events, more than max_items = {self.config.max_items:,} allows: raise that, "
                "choose item_knn or gf_cf, or drop rare items"
            )
        self.register_buffer("rows", torch.from_numpy(trained))
        weights = item_weights(seen[:, trained], self.config.l2)
        self.register_buffer("weights", torch.from_numpy(weights))

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N]."""
        scores = histories.index_select(1, self.rows) @ self.weights
        return torch.zeros_like(histories).index_copy(1, self.rows, scores)


def item_weights(seen: sp.csr_array, l2: float) -> np.ndarray:
    """B [n, n] float32 from x [U, n] of 0 and 1.

    With P = (x^T x + l2 I)^-1, B = I - P diag(1 / diag P): column j is the ridge regression of
    item j on all others. Inverted in place in float64.
    """
    n = seen.shape[1]
    gram = np.empty((n, n), order="F")
    users_of = seen.T.tocsr().astype(np.float64)
    for start in range(0, n, _BLOCK):
        gram[:, start : start + _BLOCK] = (users_of[start : start + _BLOCK] @ seen).toarray().T
    gram[np.diag_indices(n)] += l2
    _invert(gram)  # P, in the lower triangle alone
    diagonal = gram.diagonal().astype(np.float32)
    weights = gram.astype(np.float32, order="C")
    del gram
    weights = np.tril(weights, -1)
    weights += weights.T
    weights /= -diagonal
    return weights


def _invert(gram: np.ndarray) -> None:
    """A positive definite matrix [n, n], in place, in its lower triangle alone: n^3 operations."""
    lapack.dpotrf(gram, lower=1, overwrite_a=1)
    lapack.dpotri(gram, lower=1, overwrite_c=1)


def _seconds_to_invert(n: int) -> float:
    matrix = np.eye(n, order="F")
    started = time.perf_counter()
    _invert(matrix)
    return time.perf_counter() - started
