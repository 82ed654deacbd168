"""Which id holds which row of an evicting table: TorchRec's managed collisions, on every process.

Ids that training reads are taken in: a new one gets the row of the one that its policy values
least, which starts anew. The policies are TorchRec's (`torchrec.modules.mc_modules`), and what they
score is kept as TorchRec's own module keeps it: sorted keys, a row and figures of each, the last
row for whoever has none. Unlike there, every process holds the whole map and decides for all ids of
a step, as every other process does. TorchRec's sharded module gives a key to the process that its
hash names, and to the key one of the rows that this process holds: what one process has saved, two
refuse to load, since the rows of a key may lie where its hash does not lead. Here a checkpoint
holds one map, whoever holds the rows, and tables need not be split by rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchrec.modules.mc_modules import (
    DistanceLFU_EvictionPolicy,
    LFU_EvictionPolicy,
    LRU_EvictionPolicy,
    MCHEvictionPolicy,
)

from recsys.embeddings.layout import Layout, Managed
from recsys.embeddings.options import Eviction

_NOBODY = torch.iinfo(torch.int64).max  # the key of a free place: sorts behind all others
_POLICIES: dict[Eviction, type[MCHEvictionPolicy]] = {
    "lru": LRU_EvictionPolicy,
    "lfu": LFU_EvictionPolicy,
    "distance_lfu": DistanceLFU_EvictionPolicy,
}
_LAST_READ = "last_access_iter"  # of the policies' figures


class Newcomers(NamedTuple):
    """Rows [n] that belong to other ids than before, and a number for the first of these ids: the
    number of the table's rows for the first that ever came, one more for the next, and so on."""

    rows: Tensor
    first: int


class ManagedRows(nn.Module):
    """Codes of ids -> rows [0, R) of a table, of which R - 1 is that of ids without a row.

    `keys` [R] ascend, and `rows` [R] are theirs.
    """

    keys: Tensor
    rows: Tensor
    steps: Tensor
    came: Tensor

    def __init__(self, rows: int, managed: Managed) -> None:
        super().__init__()
        self.every = managed.every
        self.policy = _POLICIES[managed.eviction]()
        self._figures = [info.metadata_name for info in self.policy.metadata_info]
        self.register_buffer("keys", torch.full((rows,), _NOBODY))
        self.register_buffer("rows", torch.arange(rows))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("came", torch.zeros(1, dtype=torch.int64))
        for name in self._figures:
            self.register_buffer(name, torch.zeros(rows, dtype=torch.int64))

    def forward(self, codes: Tensor) -> Tensor:
        """Rows of codes, of their shape: nobody is taken in or evicted."""
        places = torch.searchsorted(self.keys, codes.contiguous())
        there = (self.keys[places] == codes) & (codes != 0) & (codes != _NOBODY)
        return torch.where(there, self.rows[places], len(self.keys) - 1)

    @property
    def held(self) -> Tensor:
        """Rows that ids hold, and the one of all others."""
        mine = self.rows[self.keys != _NOBODY]
        return torch.cat([mine, mine.new_tensor([len(self.rows) - 1])])

    @torch.no_grad()
    def take_in(self, codes: Tensor) -> Newcomers:
        """A step reads `codes` [n] on all processes together; they are looked up afterwards.

        Every `every`-th step takes in what it reads, and values what is there by it. As many ids as
        there are rows but one find place; of more, those that are valued most.
        """
        self.steps += 1
        step, first = int(self.steps), len(self.rows) + int(self.came)
        nobody = Newcomers(self.rows[:0], first)
        if (step - 1) % self.every:
            return nobody
        ids, counts = torch.unique(codes[(codes != 0) & (codes != _NOBODY)], return_counts=True)
        if not len(ids):
            return nobody
        often = torch.argsort(counts, descending=True, stable=True)
        ids = ids[often]
        places = torch.searchsorted(self.keys, ids)
        known = self.keys[places] == ids
        evicted, chosen = self.policy.update_metadata_and_generate_eviction_scores(
            step,
            len(self.keys),
            often,
            counts[often],
            known,
            places[known],
            {name: getattr(self, name) for name in self._figures},
            {_LAST_READ: torch.full_like(counts, step)} if _LAST_READ in self._figures else {},
        )
        self.keys[evicted] = ids[~known][chosen]
        rows = self.rows[evicted]
        order = torch.argsort(self.keys, stable=True)
        for name in ("keys", "rows", *self._figures):
            buffer: Tensor = getattr(self, name)
            buffer.copy_(buffer[order])
        self.came += len(rows)
        return Newcomers(rows, first)


def managed_rows(layout: Layout) -> nn.ModuleDict:
    """The maps of a layout's evicting tables, by their names."""
    tables = [table for table in layout.tables if table.managed is not None]
    return nn.ModuleDict({t.name: ManagedRows(t.rows, t.managed) for t in tables if t.managed})
