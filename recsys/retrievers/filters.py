"""What filters on the graph of users and items share. U users, N items, C singular vectors."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from recsys.data.examples import Examples, Interactions
from recsys.layers.sparse_linear import SparseLinear
from recsys.retrievers.fitted import ScoringRetriever, binary_matrix

_NO_COMPONENT = 1e-3  # singular values of nothing but rounding; the largest is 1


class GraphFilter(ScoringRetriever):
    """Scores by a linear low-pass filter and an ideal one.

    With R~ = D_U^-1/2 R D_I^-1/2 [U, N] and V [N, C] its first right singular vectors, the linear
    filter is P = R~^T R~, and the ideal one D_I^-1/2 V V^T D_I^1/2.
    """

    singular_vectors: Tensor
    root_degrees: Tensor

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Normalise the interactions, and find their first singular vectors."""
        matrix, _, items = normalised(binary_matrix(interactions, self.items))
        self.to_users, self.to_items = SparseLinear(matrix.T), SparseLinear(matrix)
        _, _, vectors = first_components(matrix, self.components, self.seed)
        self.register_buffer("singular_vectors", torch.from_numpy(vectors))
        self.register_buffer("root_degrees", torch.from_numpy(items.astype(np.float32)))

    @property
    @abstractmethod
    def components(self) -> int:
        """C: singular vectors that the ideal filter lets through."""

    def linear(self, x: Tensor) -> Tensor:
        """x P [B, N], by way of the users: P itself would have far more entries."""
        return self.to_items(self.to_users(x))  # type: ignore[no-any-return]

    def ideal(self, x: Tensor) -> Tensor:
        """x D_I^-1/2 V V^T D_I^1/2 [B, N]."""
        low = (x / self.root_degrees) @ self.singular_vectors
        return (low @ self.singular_vectors.T) * self.root_degrees


def normalised(seen: sp.csr_array) -> tuple[sp.csr_array, np.ndarray, np.ndarray]:
    """R~ [U, N] of R [U, N], and roots of the degrees of users [U] and items [N], 1 at least."""
    users, items = (np.sqrt(np.maximum(seen.sum(axis), 1)) for axis in (1, 0))
    return sp.csr_array(sp.diags_array(1 / users) @ seen @ sp.diags_array(1 / items)), users, items


def first_components(
    matrix: sp.csr_array, components: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first left singular vectors [U, C], values [C] and right vectors [N, C] of R~ [U, N],
    as float32; fewer where R~ has fewer."""
    # float32 singular vectors are a few times faster, and scores are float32 anyway
    left, values, right = svds(
        matrix.astype(np.float32),
        min(components, min(matrix.shape) - 1),
        rng=np.random.default_rng(seed),
    )
    kept = values > _NO_COMPONENT
    return left[:, kept].copy(), values[kept], right[kept].T.copy()
