"""Weight decay of embedding tables: of the rows that a batch reads, and of no others.

What is rare would vanish between two times that it is read.
"""

from __future__ import annotations

from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor


@torch.no_grad()
def decay_moved_rows(weights: Tensor, decay: float, rate: float | None = None) -> None:
    """Of a table [rows, D] with a gradient, before its optimizer's step: add `decay` times the rows
    that have any to the gradient, or with `rate` shrink them by `rate decay` apart from it
    (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019)."""
    if weights.grad is None:
        return
    rows = weights.grad.any(1).nonzero().squeeze(1)
    if rate is None:
        weights.grad[rows] += decay * weights[rows]
    else:
        weights[rows] *= 1 - rate * decay


class FusedDecay:
    """Shrinks the rows of a fused kernel's tables that its last forward passes have read, once its
    backward pass has moved them, by the kernel's own rate times `decay`.

    Of its kernels some know a decay on GPUs, and none does on CPUs.
    """

    def __init__(self, kernel: SplitTableBatchedEmbeddingBagsCodegen, decay: float) -> None:
        self.kernel = kernel
        self.decay = decay
        self._read: dict[int, list[Tensor]] = {}  # rows, by the table's number
        kernel.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, kernel: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():  # it answers, and nothing will move
            return
        given = dict(zip(("indices", "offsets"), args, strict=False)) | named
        tables = kernel.feature_table_map
        samples = (len(given["offsets"]) - 1) // len(tables)
        if samples:
            ends = given["offsets"][::samples].tolist()
            for place, table in enumerate(tables):
                rows = given["indices"][ends[place] : ends[place + 1]]
                self._read.setdefault(table, []).append(rows)

    @torch.no_grad()
    def step(self) -> None:
        """Shrink them, each once."""
        weights = self.kernel.split_embedding_weights()
        share = 1 - self.kernel.get_learning_rate() * self.decay
        for table, rows in self._read.items():
            weights[table][torch.cat(rows).unique().long()] *= share
        self._read.clear()
