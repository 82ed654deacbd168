"""GF-CF: a low-pass filter on the graph of users and items, without training."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from scipy.sparse.linalg import svds
from torch import Tensor

from recsys.data.examples import Examples, Interactions
from recsys.layers.sparse_linear import SparseLinear
from recsys.options import ModelConfig
from recsys.retrievers.fitted import ScoringRetriever, binary_matrix

_NO_COMPONENT = 1e-3  # singular values of nothing but rounding; the largest is 1


class GFCFConfig(ModelConfig):
    """Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021."""

    name: Literal["gf_cf"] = "gf_cf"
    alpha: float = Field(0.3, ge=0, description="Weight of the ideal low-pass filter.")
    components: int = Field(
        256, ge=1, description="Singular vectors that the ideal low-pass filter lets through."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "alpha": {"low": 0.0, "high": 1.0},
        "components": {"low": 16, "high": 512, "log": True},
    }


class GFCF(ScoringRetriever):
    """A linear filter plus an ideal one.

    With R~ = D_U^-1/2 R D_I^-1/2 [U, N] and V [N, C] its first right singular vectors, scores are
    x (R~^T R~ + alpha D_I^-1/2 V V^T D_I^1/2). The first term goes by way of the users: the
    product R~^T R~ itself would have far more entries.
    """

    Config = GFCFConfig
    config: GFCFConfig
    singular_vectors: Tensor
    root_degrees: Tensor

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Normalise the interactions, and find their first singular vectors."""
        seen = binary_matrix(interactions, self.items)
        users, items = (np.sqrt(np.maximum(seen.sum(axis), 1)) for axis in (1, 0))
        normalised = sp.diags_array(1 / users) @ seen @ sp.diags_array(1 / items)
        self.to_users, self.to_items = SparseLinear(normalised.T), SparseLinear(normalised)
        # float32 singular vectors are a few times faster, and scores are float32 anyway
        components = min(self.config.components, min(seen.shape) - 1)
        _, values, vectors = svds(
            normalised.astype(np.float32),
            components,
            return_singular_vectors="vh",
            rng=np.random.default_rng(self.seed),
        )
        vectors = vectors[values > _NO_COMPONENT].T.copy()
        self.register_buffer("singular_vectors", torch.from_numpy(vectors))
        self.register_buffer("root_degrees", torch.from_numpy(items.astype(np.float32)))

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N]."""
        linear = self.to_items(self.to_users(histories))
        low = (histories / self.root_degrees) @ self.singular_vectors
        ideal = (low @ self.singular_vectors.T) * self.root_degrees
        return linear + self.config.alpha * ideal
