"""Embeddings: a layout's tables as TorchRec collections, or as plain ones for serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec.modules.embedding_configs import (
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from recsys.distributed import current_group
from recsys.embeddings.initial_weights import fill
from recsys.embeddings.layout import Layout, Lookup, Table
from recsys.embeddings.managed import ManagedRows, Newcomers
from recsys.embeddings.plain import PlainEmbeddings, RowMaps, combine, lookups_by

Bag: TypeAlias = Tensor | JaggedTensor
_Jagged: TypeAlias = tuple[Tensor, Tensor]


class Embeddings(nn.Module):
    """Vectors of ids and of bags of ids.

    Small tables are plain and replicated: TorchRec would look up every feature on its own, and
    every such lookup would make a gradient of the whole table. Large ones are an
    EmbeddingCollection and an EmbeddingBagCollection, one call of each a step, so that they
    communicate once. They have no memory yet (they are on the meta device): `shard` gives every
    process its part of them, `materialise` all of them to this one.
    """

    def __init__(self, layout: Layout, seed: int = 0) -> None:
        super().__init__()
        self.layout = layout
        self.seed = seed
        self.maps = RowMaps(layout)
        self.tables = nn.ModuleDict()
        self.sharded = nn.ModuleDict()
        self._lookups: dict[str, list[Lookup]] = {}  # of the sharded, which cannot be asked
        self.evicted: Callable[[Embeddings, str, Newcomers], None] = _draw_again
        self._pooled = {
            name
            for name, lookups in layout.lookups.items()
            if all(layout.table(lookup.table).pooled for lookup in lookups)
        }
        for table in layout.tables:
            if not table.sharded:
                weights = torch.empty(table.rows, table.width)
                self.fill(weights, table.name)
                self.tables[table.name] = nn.Embedding.from_pretrained(weights, freeze=False)
        for name, pooled in (("ids", False), ("bags", True)):
            tables = [t for t in layout.tables if t.sharded and t.pooled == pooled]
            if tables:
                self.sharded[name] = _collection(layout, tables, pooled)
                self._lookups[name] = lookups_by(layout, {table.name for table in tables})

    def forward(
        self, ids: dict[str, Tensor], bags: dict[str, Bag] | None = None
    ) -> dict[str, Tensor]:
        """Vectors by feature, D its width: ids [...] -> [..., D], bags [n, L] -> [n, D].

        Bags are padded with 0, or jagged without any 0, and averaged over what is there; an
        empty bag gives zeros.
        """
        if self.training and torch.is_grad_enabled():
            self._take_in(ids)
        bags = bags or {}
        pooled = {name: _jagged(bag) for name, bag in bags.items() if name in self._pooled}
        padded = {name: _padded(bag) for name, bag in bags.items() if name not in pooled}
        single = {**ids, **padded}
        probes: dict[str, Tensor] = {}
        for name, module in self.tables.items():
            assert isinstance(module, nn.Embedding)
            lookups = lookups_by(self.layout, {name})
            if self.layout.table(name).pooled:
                probes |= _pool(module.weight, lookups, self.maps, pooled)
            else:
                probes |= _read(module.weight, lookups, self.maps, single)
        if single and "ids" in self.sharded:
            probes |= _single(self.sharded["ids"], self._lookups["ids"], self.maps, single)
        if pooled and "bags" in self.sharded:
            probes |= _bags(self.sharded["bags"], self._lookups["bags"], self.maps, pooled)
        return combine(self.layout, probes, {**ids, **dict.fromkeys(pooled, _NO_BAG)}, padded)

    def _take_in(self, ids: dict[str, Tensor]) -> None:
        """Give rows of evicting tables to new ids among those that all processes read."""
        for table, module in self.maps.managed.items():
            assert isinstance(module, ManagedRows)
            read = [
                ids[lookup.feature].flatten()
                for lookup in lookups_by(self.layout, {table})
                if lookup.feature in ids
            ]
            if read:
                newcomers = module.take_in(current_group().concat(_together(read)))
                if len(newcomers.rows):
                    self.evicted(self, table, newcomers)

    def replicated_rows(
        self, ids: dict[str, Tensor], bags: dict[str, Bag]
    ) -> Iterator[tuple[str, Tensor]]:
        """Replicated tables and the rows that `forward` reads of them, a feature's at a time."""
        read = dict(ids) | {name: _jagged(bag)[0] for name, bag in bags.items()}
        for table in self.tables:
            for lookup in lookups_by(self.layout, {table}):
                if lookup.feature in read:
                    yield table, self.maps(lookup, read[lookup.feature])

    @torch.no_grad()
    def fill(self, weights: Tensor, table: str, first_row: int = 0, first_column: int = 0) -> None:
        """Draw `weights` [n, d], the part of a table that begins there."""
        width = self.layout.table(table).width
        start = {"first_row": first_row, "first_column": first_column}
        fill(weights, table, width, self.layout.config, seed=self.seed, **start)

    def plain(self) -> PlainEmbeddings:
        """The same vectors from plain tables with copied weights: exports without TorchRec."""
        weights = [*self.tables.named_parameters(), *self.sharded.named_parameters()]
        tables = {
            table_of(name): nn.Embedding.from_pretrained(of_table.detach().clone())
            for name, of_table in weights
        }
        plain = PlainEmbeddings(self.layout, tables)
        plain.maps.managed.load_state_dict(self.maps.managed.state_dict())
        return plain


_NO_BAG = torch.empty(0)  # stands for a bag that is pooled already


def _draw_again(embeddings: Embeddings, table: str, newcomers: Newcomers) -> None:
    """What newcomers start from where no optimizer is asked: tables that lie here, whole."""
    with torch.no_grad():
        weights: Any = embeddings.tables[table].weight
        drawn = torch.empty(len(newcomers.rows), weights.shape[1])
        embeddings.fill(drawn, table, newcomers.first)
        weights[newcomers.rows] = drawn.to(weights)


def materialise(model: nn.Module) -> nn.Module:
    """Give large tables that have no memory yet all their weights, here; returns the model."""
    for module in model.modules():
        if isinstance(module, Embeddings):
            for collection in module.sharded.values():
                if any(weights.is_meta for weights in collection.parameters()):
                    collection.to_empty(device="cpu")
                    for name, weights in collection.named_parameters():
                        module.fill(weights, table_of(name))
    return model


def table_of(parameter: str) -> str:
    """The table's name in that of its weights: `...embedding_bags.tags.weight`."""
    return parameter.split(".")[-2]


def _collection(layout: Layout, tables: list[Table], pooled: bool) -> nn.Module:
    configs = [
        {
            "name": table.name,
            "embedding_dim": table.width,
            "num_embeddings": table.rows,
            "feature_names": [lookup.key for lookup in lookups_by(layout, {table.name})],
            "init_fn": _leave,
        }
        for table in tables
    ]
    meta = torch.device("meta")
    if pooled:
        bag = [EmbeddingBagConfig(**config, pooling=PoolingType.MEAN) for config in configs]
        return EmbeddingBagCollection(bag, device=meta)
    return EmbeddingCollection([EmbeddingConfig(**config) for config in configs], device=meta)


def _leave(weights: Tensor) -> Tensor:
    """TorchRec would draw weights that are drawn elsewhere."""
    return weights


def _padded(bag: Bag) -> Tensor:
    """[n, L], padded with 0."""
    if isinstance(bag, Tensor):
        return bag
    longest = max(1, int(bag.lengths().max())) if len(bag.lengths()) else 1
    return torch.ops.fbgemm.jagged_to_padded_dense(
        bag.values().unsqueeze(1), [bag.offsets()], [longest], 0
    ).squeeze(2)


def _jagged(bag: Bag) -> _Jagged:
    """(values, lengths)."""
    if isinstance(bag, Tensor):
        return bag[bag != 0], (bag != 0).sum(1)
    return bag.values(), bag.lengths()


def _read(
    weights: Tensor, lookups: list[Lookup], maps: RowMaps, ids: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Every lookup's vectors [..., W] from a plain table, all in one."""
    lookups = [lookup for lookup in lookups if lookup.feature in ids]
    if not lookups:
        return {}
    by_lookup = [maps(lookup, ids[lookup.feature]) for lookup in lookups]
    vectors = F.embedding(_together([rows.reshape(-1) for rows in by_lookup]), weights)
    split = vectors.split([rows.numel() for rows in by_lookup])
    return {
        lookup.key: read.view(*rows.shape, vectors.shape[1])
        for lookup, read, rows in zip(lookups, split, by_lookup, strict=True)
    }


def _pool(
    weights: Tensor, lookups: list[Lookup], maps: RowMaps, bags: dict[str, _Jagged]
) -> dict[str, Tensor]:
    """Every lookup's averaged vectors [n, W] from a plain table, all in one."""
    lookups = [lookup for lookup in lookups if lookup.feature in bags]
    if not lookups:
        return {}
    rows = [maps(lookup, bags[lookup.feature][0]) for lookup in lookups]
    lengths = [bags[lookup.feature][1] for lookup in lookups]
    ends = _together(lengths).cumsum(0)
    offsets = torch.cat([ends.new_zeros(1), ends])
    vectors = F.embedding_bag(
        _together(rows).to(offsets.dtype), weights, offsets, mode="mean", include_last_offset=True
    )
    split = vectors.split([len(of_bags) for of_bags in lengths])
    return {lookup.key: pooled for lookup, pooled in zip(lookups, split, strict=True)}


def _together(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _single(
    collection: nn.Module, lookups: list[Lookup], maps: RowMaps, ids: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Every lookup's vectors [..., W]; the KJT has one sample that holds all ids of a key."""
    some = next(iter(ids.values()))
    by_lookup = [
        maps(lookup, ids[lookup.feature]).reshape(-1)
        if lookup.feature in ids
        else some.new_empty(0)
        for lookup in lookups
    ]
    lengths = torch.tensor([len(rows) for rows in by_lookup], device=some.device)
    keys = [lookup.key for lookup in lookups]
    out = collection(KeyedJaggedTensor(keys, torch.cat(by_lookup), lengths=lengths))
    return {
        lookup.key: vectors.reshape(*ids[lookup.feature].shape, vectors.shape[1])
        for lookup, vectors in ((lookup, out[lookup.key].values()) for lookup in lookups)
        if lookup.feature in ids
    }


def _bags(
    collection: nn.Module, lookups: list[Lookup], maps: RowMaps, bags: dict[str, _Jagged]
) -> dict[str, Tensor]:
    """Every lookup's averaged vectors [n, W]; the KJT has as many samples as the largest n.

    One call whatever the sizes: processes that call a sharded collection different numbers of
    times would wait for each other for ever, and its backward pass wants equal sizes everywhere.
    """
    some = next(iter(bags.values()))[0]
    largest = max(len(lengths) for _, lengths in bags.values())
    size = current_group().largest(largest, some.device)
    none = (some.new_zeros(0), some.new_zeros(0))
    values, lengths = [], []
    for lookup in lookups:
        ids, counts = bags.get(lookup.feature, none)
        values.append(maps(lookup, ids))
        lengths.append(F.pad(counts, (0, size - len(counts))))
    keys = [lookup.key for lookup in lookups]
    out = collection(KeyedJaggedTensor(keys, _together(values), lengths=_together(lengths)))
    return {
        lookup.key: out[lookup.key][: len(bags[lookup.feature][1])]
        for lookup in lookups
        if lookup.feature in bags
    }
