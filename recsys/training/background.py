"""Checkpoints written beside the training: the state is copied, and a thread writes the copy."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor

from recsys.distributed import Group
from recsys.training import checkpoint
from recsys.training.checkpoint import Tensors

MB = 1e6


class Writer:
    """Writes the checkpoints of a training, one at a time; the newest `keep` and the best stay.

    State of up to `copy_mb` megabytes on this process is copied, which is all that the training
    waits for; larger state is written at once. Sharded tables, which a forward pass only reads,
    are copied during the next one: call `settle` before anything moves them. Every process must
    have a writer. The memory of the copy is kept: fresh memory would take several times as long
    to write to.
    """

    def __init__(self, folder: Path, group: Group, *, keep: int, copy_mb: float) -> None:
        self.folder = folder
        self.group = group
        self.keep = keep
        self.copy_mb = copy_mb
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copying: Future[None] | None = None
        self._writing: Future[None] | None = None
        self._memory: dict[str, Tensor] = {}

    def reserve(self, tensors: Tensors) -> None:
        """Take the memory for copies of such state, beside the training."""
        if self._fits(tensors):
            self._begin(tensors)

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Write a checkpoint once the one before is written.

        Raises DataError when this one, or the one before, cannot be written.
        """
        self.wait()
        if self._fits(tensors):
            copied = self._begin(tensors)
            self._writing = self._thread.submit(self._write, step, copied, state)
        else:
            self._write(step, tensors, state)

    def settle(self) -> None:
        """Until all is copied."""
        if self._copying is not None:
            copying, self._copying = self._copying, None
            copying.result()

    def wait(self) -> None:
        """Until all is written. Raises DataError when it could not be."""
        self.settle()
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def drain(self) -> None:
        """Until nothing is being written any more, also after a signal has ended a `wait`."""
        self._thread.submit(lambda: None).result()

    def _begin(self, tensors: Tensors) -> Tensors:
        """Copy what is not sharded; the thread copies the rest, before whatever else it does."""
        later: list[tuple[Tensor, Tensor]] = []
        copied = self._copy(tensors, later)
        self._copying = self._thread.submit(_copy_all, later)
        return copied

    def _write(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        path = checkpoint.folder_of(self.folder, step)
        checkpoint.write(path, tensors, state, self.group)
        if self.group.leads:
            checkpoint.prune(self.folder, self.keep)

    def _fits(self, tensors: Tensors) -> bool:
        """The same answer on every process: they write together."""
        mine = int(_bytes(tensors) <= self.copy_mb * MB)
        return all(self.group.gather(mine, background=True))

    @torch.no_grad()
    def _copy(self, state: Any, later: list[tuple[Tensor, Tensor]], path: str = "") -> Any:
        """The same state on the CPU, where nothing changes it until the next copy.

        Pairs of memory and of what is still to be copied to it are added to `later`.
        """
        if isinstance(state, dict):
            entries = state.items()
            return {name: self._copy(value, later, f"{path}/{name}") for name, value in entries}
        if isinstance(state, ShardedTensor):
            if any(shard.tensor.is_cuda for shard in state.local_shards()):
                return state.cpu(process_group=self.group.background)
            copies = []
            for number, shard in enumerate(state.local_shards()):
                memory = self._memory_for(shard.tensor, f"{path}/{number}")
                later.append((memory, shard.tensor))
                copies.append(Shard(memory, shard.metadata))
            return ShardedTensor._init_from_local_shards_and_global_metadata(
                copies, state.metadata(), process_group=state._process_group
            )
        return self._memory_for(state, path).copy_(state) if isinstance(state, Tensor) else state

    def _memory_for(self, tensor: Tensor, path: str) -> Tensor:
        memory = self._memory.get(path)
        if memory is None or memory.shape != tensor.shape or memory.dtype != tensor.dtype:
            memory = self._memory[path] = torch.empty_like(tensor, device="cpu")
        return memory


@torch.no_grad()
def _copy_all(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for memory, source in pairs:
        memory.copy_(source)


def _bytes(state: Any) -> int:
    if isinstance(state, dict):
        return sum(map(_bytes, state.values()))
    if isinstance(state, ShardedTensor):
        return sum(shard.tensor.nbytes for shard in state.local_shards())
    return state.nbytes if isinstance(state, Tensor) else 0
