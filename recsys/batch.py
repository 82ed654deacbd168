"""Batch: the only object between the reader and a model."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """B rows of examples.

    `sequences` holds lists (histories, targets) and single ids, which are lists of one; all
    values are vocabulary rows or whole seconds. `bags` holds multi-hot features. `dense` is
    [B, F] in the order of `dense_names`; `labels` and `weights` are [B].
    """

    sequences: KeyedJaggedTensor
    bags: KeyedJaggedTensor | None
    dense: Tensor
    dense_names: tuple[str, ...] = ()
    labels: Tensor | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return self.sequences.stride()

    def jagged(self, name: str) -> JaggedTensor:
        """The values [sum of lengths] and lengths [B] of a list."""
        if name in self.sequences.keys():  # noqa: SIM118 (not a dict)
            return self.sequences[name]
        if self.bags is None:
            raise KeyError(name)
        return self.bags[name]

    def ids(self, name: str) -> Tensor:
        """A single id [B]."""
        return self.jagged(name).values()

    def padded(self, name: str, length: int | None = None) -> Tensor:
        """A list [B, L], padded with 0 behind; L is the longest list, or the last `length`."""
        found = self.jagged(name)
        lengths = found.lengths().to(torch.int64)
        longest = int(lengths.max()) if len(lengths) else 0
        width = max(1, longest if length is None else min(longest, length))
        kept = lengths.clamp(max=width)
        columns = torch.arange(width, device=lengths.device)
        ends = lengths.cumsum(0)
        places = (ends - kept).unsqueeze(1) + columns
        values = torch.cat([found.values(), found.values().new_zeros(width)])
        return values[places] * (columns < kept.unsqueeze(1))

    def column(self, name: str) -> Tensor:
        """A dense column [B]."""
        return self.dense[:, self.dense_names.index(name)]

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return self._map(lambda part: part.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in pinned memory."""
        return self._map(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the tensors alive until `stream` is done with them."""
        self._map(lambda part: part.record_stream(stream))

    def _map(self, change) -> Batch:  # type: ignore[no-untyped-def]
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {
            name: part if part is None or name == "dense_names" else change(part)
            for name, part in parts.items()
        }
        return Batch(**moved)
