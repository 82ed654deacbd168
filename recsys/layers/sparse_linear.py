"""A linear map that is mostly zeros."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.by_parts import by_parts


class SparseLinear(nn.Module):
    """y = x S for dense x [B, N] and a sparse S [N, M].

    Column j of S is a bag of rows of x^T, added up with the column's values as weights. As an
    embedding bag it is faster than torch.sparse, and torch.export takes it, as it does not that.
    """

    rows: Tensor
    values: Tensor
    offsets: Tensor

    def __init__(self, matrix: sp.sparray | sp.spmatrix) -> None:
        super().__init__()
        columns = sp.csc_array(matrix)
        columns.sort_indices()
        self.register_buffer("rows", torch.from_numpy(columns.indices.astype(np.int32)))
        self.register_buffer("values", torch.from_numpy(columns.data.astype(np.float32)))
        self.register_buffer("offsets", torch.from_numpy(columns.indptr.astype(np.int32)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N] -> [B, M]."""
        return by_parts(self._multiply, x)

    def _multiply(self, x: Tensor) -> Tensor:
        return F.embedding_bag(
            self.rows,
            x.T.contiguous(),
            self.offsets,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        ).T
