"""Weight decay of embedding tables: of the rows that a batch reads, and of no others.

What is rare would vanish between two times that it is read. Mini-batch-aware regularisation, beside
it, shrinks a row the less each time, the oftener it is read in an epoch: `w -= rate decay / n w`
(Zhou et al., "Deep interest network", KDD 2018, equation 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn

from recsys.embeddings.tables import Bag, Embeddings


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
        for table, rows in _rows_read(kernel, args, named):
            self._read.setdefault(table, []).append(rows)

    @torch.no_grad()
    def step(self) -> None:
        """Shrink them, each once."""
        weights = self.kernel.split_embedding_weights()
        share = 1 - self.kernel.get_learning_rate() * self.decay
        for table, rows in self._read.items():
            weights[table][torch.cat(rows).unique().long()] *= share
        self._read.clear()


class MiniBatchAware:
    """Mini-batch-aware regularisation of the replicated tables of `embeddings`.

    While it is `counting`, it notes what is read, and nothing shrinks.
    """

    def __init__(self, embeddings: Embeddings, decay: float) -> None:
        self.embeddings = embeddings
        self.decay = decay
        self.counting = False
        self._weights: dict[str, Tensor] = {}
        for name, module in embeddings.tables.items():
            assert isinstance(module, nn.Embedding)
            if module.weight.requires_grad:
                self._weights[name] = module.weight
        self._counts = {
            name: weights.new_zeros(len(weights)) for name, weights in self._weights.items()
        }
        embeddings.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not self.counting:
            return
        given = dict(zip(("ids", "bags"), args, strict=False)) | named
        bags: dict[str, Bag] = given.get("bags") or {}
        for name, rows in self.embeddings.replicated_rows(given["ids"], bags):
            if name in self._counts:
                _add(self._counts[name], rows)

    def counted(self, summed: Callable[[Tensor], Tensor]) -> None:
        """An epoch was read by all processes, over which a tensor is `summed`."""
        self._counts = {name: summed(counts) for name, counts in self._counts.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Shrink the rows that have a gradient, before the optimizer's step moves them."""
        for name, weights in self._weights.items():
            if weights.grad is not None:
                rows = weights.grad.any(1).nonzero().squeeze(1)
                weights[rows] *= 1 - _share(self._counts[name][rows], rate * self.decay)


class FusedMiniBatchAware:
    """The same of a fused kernel's tables, or of the parts of them that it holds: once its backward
    pass has moved rows, by what they were when they were read."""

    def __init__(self, kernel: SplitTableBatchedEmbeddingBagsCodegen, decay: float) -> None:
        self.kernel = kernel
        self.decay = decay
        self.counting = False
        tables = kernel.split_embedding_weights()
        self._counts = [weights.new_zeros(len(weights)) for weights in tables]
        # of this step, in which a table may be read more than once
        self._seen = [counts.bool() for counts in self._counts]
        self._read: list[tuple[int, Tensor, Tensor]] = []  # table, rows, and what they were
        kernel.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, kernel: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not (self.counting or torch.is_grad_enabled()):  # it answers
            return
        weights = self.kernel.split_embedding_weights()
        for table, read in _rows_read(kernel, args, named):
            if self.counting:
                _add(self._counts[table], read)
                continue
            rows = read.unique().long()
            rows = rows[~self._seen[table][rows]]
            self._seen[table][rows] = True
            self._read.append((table, rows, weights[table].detach()[rows]))

    def counted(self, summed: Callable[[Tensor], Tensor]) -> None:
        """An epoch was read; ids of all processes have come to the kernel that holds their rows."""

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Shrink them; the kernel has a rate of its own."""
        weights = self.kernel.split_embedding_weights()
        decay = self.kernel.get_learning_rate() * self.decay
        for table, rows, before in self._read:
            weights[table][rows] -= _share(self._counts[table][rows], decay) * before
            self._seen[table][rows] = False
        self._read.clear()


def _add(counts: Tensor, rows: Tensor) -> None:
    counts += torch.bincount(rows.flatten(), minlength=len(counts))


def _share(counts: Tensor, decay: float) -> Tensor:
    """What rows lose of themselves, [n, 1]."""
    return (decay / counts.clamp(min=1)).unsqueeze(1)


def _rows_read(
    kernel: SplitTableBatchedEmbeddingBagsCodegen, args: tuple[Any, ...], named: dict[str, Any]
) -> Iterator[tuple[int, Tensor]]:
    """Each feature's table, by its number, and the rows that a forward pass reads of it."""
    given = dict(zip(("indices", "offsets"), args, strict=False)) | named
    tables = kernel.feature_table_map
    samples = (len(given["offsets"]) - 1) // len(tables)
    if samples:
        ends = given["offsets"][::samples].tolist()
        for place, table in enumerate(tables):
            yield table, given["indices"][ends[place] : ends[place + 1]]
