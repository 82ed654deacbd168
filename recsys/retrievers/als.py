"""ALS: a weighted factorisation; a user's vector is solved for from the history."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from feature_store.columns import HISTORY
from feature_store.errors import ConfigError
from recsys.data.examples import Examples, Interactions
from recsys.layers.by_parts import by_parts
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.fitted import FittedRetriever, binary_matrix


class ALSConfig(ModelConfig):
    """Hu, Koren & Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008,
    fitted by the library implicit."""

    name: Literal["als"] = "als"
    factors: int = Field(64, ge=1, description="D: width of the vectors.")
    regularisation: float = Field(0.1, gt=0, description="Weight of the squared vectors.")
    alpha: float = Field(
        10, gt=0, description="Confidence in an event, where that in no event is 1."
    )
    iterations: int = Field(15, ge=1, description="Times that both sides are solved for.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "factors": {"low": 16, "high": 256, "log": True},
        "regularisation": {"low": 0.001, "high": 100.0, "log": True},
        "alpha": {"low": 0.5, "high": 100.0, "log": True},
        "iterations": {"low": 5, "high": 30},
    }


class ALS(FittedRetriever):
    """Users without training events, and histories that grew since, are answered alike.

    Item vectors Y come from the training; the user's vector is the half step of it that is
    solved exactly: (Y^T Y + (alpha - 1) Y_u^T Y_u + regularisation I) w = alpha Y_u^T 1, where
    Y_u [T, D] are the vectors of the distinct items of the history.
    """

    Config = ALSConfig
    config: ALSConfig
    vectors: Tensor
    gram: Tensor

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Alternate between users and items.

        Raises ConfigError when the factors grow without bounds.
        """
        # with its extensions it takes a while to import, and other retrievers need it not
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.recommender_base import ModelFitError

        seen = sp.csr_matrix(binary_matrix(interactions, self.items))
        with threadpool_limits(1, "blas"):  # its own threads are one per row, in any order
            model = AlternatingLeastSquares(
                factors=self.config.factors,
                regularization=self.config.regularisation,
                alpha=self.config.alpha,
                iterations=self.config.iterations,
                random_state=self.seed,
            )
            try:
                model.fit(seen, show_progress=False)
            except ModelFitError:
                raise ConfigError(
                    f"als with regularisation = {self.config.regularisation} and alpha = "
                    f"{self.config.alpha} found no finite factors: raise the first, or lower alpha"
                ) from None
        vectors = model.item_factors.astype(np.float64)
        vectors[seen.getnnz(0) == 0] = 0  # row 0, and items without training events
        gram = vectors.T @ vectors + self.config.regularisation * np.eye(self.config.factors)
        self.register_buffer("vectors", torch.from_numpy(vectors.astype(np.float32)))
        self.register_buffer("gram", torch.from_numpy(gram.astype(np.float32)))

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D]."""
        return single_interest(by_parts(self._fold_in, inputs[HISTORY]))

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        return self.vectors[rows]

    def _fold_in(self, history: Tensor) -> Tensor:
        """[b, T] -> [b, D]."""
        ordered = history.sort(dim=1).values
        before = F.pad(ordered, (1, -1))
        distinct = ordered.masked_fill(ordered == before, 0)
        vectors = self.vectors[distinct]  # [b, T, D]; padding has the vector 0
        matrix = self.gram + (self.config.alpha - 1) * vectors.transpose(1, 2) @ vectors
        return torch.linalg.solve(matrix, self.config.alpha * vectors.sum(1))
