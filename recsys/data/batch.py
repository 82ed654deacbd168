"""Batch: the only object between the reader and a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from feature_store.columns import label_of


@dataclass
class Batch(Pipelineable):
    """B rows of examples.

    `ids` [B, I] holds single ids, in the order of `id_names`; `lists` histories, targets and
    multi-hot features by name; all are int64, vocabulary rows or whole seconds. `dense` is [B, F]
    in the order of `dense_names`, and `labels` [B, tasks] in that of `label_names`, their columns.
    """

    ids: Tensor
    id_names: tuple[str, ...]
    lists: KeyedJaggedTensor | None
    dense: Tensor
    dense_names: tuple[str, ...] = ()
    labels: Tensor | None = None
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, name: str) -> bool:
        """Whether there is a list of that name."""
        return self.lists is not None and name in self.lists.keys()  # noqa: SIM118 (not a dict)

    def id(self, name: str) -> Tensor:
        """A single id [B]."""
        return self.ids[:, self.id_names.index(name)]

    def column(self, name: str) -> Tensor:
        """A number [B]."""
        return self.dense[:, self.dense_names.index(name)]

    def label(self, task: str) -> Tensor:
        """The labels of a task [B], NaN where a row has none."""
        assert self.labels is not None, "these examples have no labels"
        return self.labels[:, self.label_names.index(label_of(task))]

    def jagged(self, name: str) -> JaggedTensor:
        """The values [sum of lengths] and lengths [B] of a list. Raises KeyError."""
        if self.lists is None or not self.has(name):
            raise KeyError(name)
        return self.lists[name]

    def padded(self, name: str, length: int | None = None) -> Tensor:
        """A list [B, L], padded with 0 behind; L is the longest list, or the last `length`."""
        jagged = self.jagged(name)
        lengths = jagged.lengths().to(torch.int64)
        longest = int(lengths.max()) if len(lengths) else 0
        width = max(1, longest if length is None else min(longest, length))
        kept = lengths.clamp(max=width)
        columns = torch.arange(width, device=lengths.device)
        ends = lengths.cumsum(0)
        positions = (ends - kept).unsqueeze(1) + columns
        values = torch.cat([jagged.values(), jagged.values().new_zeros(width)])
        return values[positions] * (columns < kept.unsqueeze(1))

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return self._map(lambda tensor: tensor.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the tensors alive until `stream` is done with them."""
        self._map(lambda tensor: tensor.record_stream(stream))

    def _map(self, change: Callable[[Any], Any]) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {
            name: value if value is None or isinstance(value, tuple) else change(value)
            for name, value in values.items()
        }
        return Batch(**moved)  # type: ignore[arg-type]
