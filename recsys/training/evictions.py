"""Rows that get another owner start anew: their weights, and what optimizers know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recsys.embeddings.managed import Newcomers
from recsys.embeddings.tables import Embeddings, table_of

_Part = tuple[Tensor, int, int]
"""A part of a table, and its first row and column."""


class Evictions:
    """Resets rows of evicting tables, wherever they lie, before those who get them are read.

    Newcomers start from weights that are drawn as if the table had further rows, one for each: the
    same on any number of processes. The state of optimizers is 0, as before the first step.
    `settle` waits until nobody copies tables, which move here.
    """

    def __init__(self, model: nn.Module, fused: Any, dense: Any) -> None:
        self.settle: Callable[[], None] = lambda: None
        self._fused = fused
        self._dense = dense
        self._sharded: dict[str, list[_Part]] = {}  # weights and state, by table
        self._modules = [
            module
            for module in model.modules()
            if isinstance(module, Embeddings) and module.maps.managed
        ]
        for module in self._modules:
            module.evicted = self._reset

    def __deepcopy__(self, memo: dict[int, Any]) -> Evictions:
        """Copies of a model are not trained: it is not asked there."""
        return self

    def __bool__(self) -> bool:
        """Whether any table evicts."""
        return bool(self._modules)

    @torch.no_grad()
    def _reset(self, embeddings: Embeddings, table: str, newcomers: Newcomers) -> None:
        self.settle()
        rows = newcomers.rows
        drawn = torch.empty(len(rows), embeddings.layout.table(table).width)
        embeddings.fill(drawn, table, newcomers.first)
        if table in embeddings.tables:
            weights: Any = embeddings.tables[table].weight
            weights[rows] = drawn.to(weights)
            for value in self._dense.state.get(weights, {}).values():
                if isinstance(value, Tensor) and value.shape[:1] == weights.shape[:1]:
                    value[rows] = 0
            return
        if table not in self._sharded:
            self._sharded[table] = list(_weights(embeddings, table))
            self._sharded[f"{table} state"] = list(_state(self._fused, table))
        for part, first, column in self._sharded[table]:
            here, own = _here(part, rows, first)
            part[here] = drawn.to(part)[own, column : column + part.shape[1]]
        for part, first, _ in self._sharded[f"{table} state"]:
            part[_here(part, rows, first)[0]] = 0


def _weights(embeddings: Embeddings, table: str) -> Iterator[_Part]:
    for name, weights in embeddings.sharded.state_dict().items():
        if table_of(name) == table:
            yield from _parts(weights)


def _state(fused: Any, table: str) -> Iterator[_Part]:
    for name, values in fused.state_dict()["state"].items():
        if table_of(name) == table and ".sharded." in f".{name}":
            for value in values.values():
                if hasattr(value, "local_shards"):
                    yield from _parts(value)


def _parts(value: Any) -> Iterator[_Part]:
    """What this process holds of a sharded tensor."""
    for shard in value.local_shards():
        offsets = [*shard.metadata.shard_offsets, 0]
        yield shard.tensor, offsets[0], offsets[1]


def _here(part: Tensor, rows: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Which of `rows` [n] a part holds, by its own numbers, and their places [m] among them."""
    own = rows - first
    places = ((own >= 0) & (own < len(part))).nonzero().squeeze(1)
    return own[places], places
