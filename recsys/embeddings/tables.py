"""Embeddings: a layout's tables as TorchRec collections, or as plain ones for serving."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec.modules.embedding_configs import (
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.embeddings.layout import Layout, Lookup, Table
from recsys.embeddings.plain import PlainEmbeddings, combine, lookups_by
from recsys.training.distributed import current_group


class Embeddings(nn.Module):
    """Vectors of ids and of bags of ids.

    At most one EmbeddingCollection and one EmbeddingBagCollection, each in a part that stays
    dense and replicated and a part that is sharded when there are large tables. All lookups of
    a step go through one call, so that a sharded collection communicates once.
    """

    def __init__(self, layout: Layout, device: torch.device | None = None) -> None:
        super().__init__()
        self.layout = layout
        self.collections = nn.ModuleDict()
        self._lookups: dict[str, list[Lookup]] = {}  # by collection: sharded ones cannot be asked
        for pooled in (False, True):
            for sharded in (False, True):
                tables = [t for t in layout.tables if (t.pooled, t.sharded) == (pooled, sharded)]
                if tables:
                    name = f"{'bags' if pooled else 'ids'}_{'sharded' if sharded else 'dense'}"
                    self.collections[name] = _collection(layout, tables, pooled, device)
                    self._lookups[name] = lookups_by(layout, {table.name for table in tables})

    def forward(
        self, ids: dict[str, Tensor], bags: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Vectors of width D by feature: ids [...] -> [..., D], bags [n, L] -> [n, D].

        Bags are padded with 0 and averaged over what is there; an empty bag gives zeros.
        """
        bags = bags or {}
        found: dict[str, Tensor] = {}
        for name, collection in self.collections.items():
            lookups = self._lookups[name]
            if name.startswith("bags"):
                found |= _pooled(collection, lookups, bags, sharded=name.endswith("sharded"))
            else:
                found |= _single(collection, lookups, {**ids, **bags})
        return combine(self.layout, found, ids, bags)

    def plain(self) -> PlainEmbeddings:
        """The same vectors from plain tables with copied weights: exports without TorchRec."""
        weights = {
            name.split(".")[-2]: value.detach().clone() for name, value in self.state_dict().items()
        }
        return PlainEmbeddings(self.layout, weights)


def _collection(
    layout: Layout, tables: list[Table], pooled: bool, device: torch.device | None
) -> nn.Module:
    init = partial(nn.init.normal_, std=layout.init_std)
    configs = [
        {
            "name": table.name,
            "embedding_dim": table.width,
            "num_embeddings": table.rows,
            "feature_names": [one.key for one in lookups_by(layout, {table.name})],
            "init_fn": init,
        }
        for table in tables
    ]
    if pooled:
        bag = [EmbeddingBagConfig(**config, pooling=PoolingType.MEAN) for config in configs]
        return EmbeddingBagCollection(bag, device=device)
    return EmbeddingCollection([EmbeddingConfig(**config) for config in configs], device=device)


def _single(
    collection: nn.Module, lookups: list[Lookup], ids: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Every lookup's vectors [..., W]; the KJT has one sample that holds all ids of a key."""
    if not ids:
        return {}
    some = next(iter(ids.values()))
    rows = [
        one(ids[one.feature]).reshape(-1) if one.feature in ids else some.new_empty(0)
        for one in lookups
    ]
    lengths = torch.tensor([len(part) for part in rows], device=some.device)
    out = collection(
        KeyedJaggedTensor([one.key for one in lookups], torch.cat(rows), lengths=lengths)
    )
    return {
        one.key: out[one.key].values().reshape(*ids[one.feature].shape, -1)
        for one in lookups
        if one.feature in ids
    }


def _pooled(
    collection: nn.Module, lookups: list[Lookup], bags: dict[str, Tensor], *, sharded: bool
) -> dict[str, Tensor]:
    """Every lookup's averaged vectors [n, W]; the KJT has as many samples as the largest n.

    One call whatever the sizes: processes that call a sharded collection different numbers of
    times would wait for each other for ever, and its backward pass wants equal sizes everywhere.
    """
    here = {one.feature: bags[one.feature] for one in lookups if one.feature in bags}
    if not here:
        return {}
    some = next(iter(here.values()))
    size = max(len(bag) for bag in here.values())
    if sharded:
        size = current_group().largest(size, some.device)
    values, lengths = [], []
    for one in lookups:
        bag = here.get(one.feature, some.new_zeros(0, 0))
        values.append(one(bag[bag != 0]))
        lengths.append(F.pad((bag != 0).sum(1), (0, size - len(bag))))
    keys = [one.key for one in lookups]
    out = collection(KeyedJaggedTensor(keys, torch.cat(values), lengths=torch.cat(lengths)))
    return {
        one.key: out[one.key][: len(here[one.feature])] for one in lookups if one.feature in here
    }
