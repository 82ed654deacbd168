"""Layout: which rows of which table hold an id of a feature. Knows nothing of TorchRec."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from feature_store.errors import ConfigError
from feature_store.vocabulary import Keys, Vocabulary
from recsys.embeddings.hashing import VERSION, salt_of
from recsys.embeddings.options import (
    EmbeddingsConfig,
    Evicting,
    Eviction,
    Hashed,
    PerFeature,
    Sharding,
    TableConfig,
    Unified,
)

UNIFIED = "unified"
_TAKEN = frozenset(dir(nn.ModuleDict()))
_FLOAT = 4  # bytes
_USEFUL = ("rows", "width", "sharding")
_FEWEST = 2  # rows of an evicting table: one of an id, and the one of all others


@dataclass(frozen=True)
class FeatureSpec:
    """An embedded feature: its table, the rows of its vocabulary, and whether it is a bag.

    Without `vocabulary` the rows themselves stand for raw ids. With `Keys` it is `keyed`: there are
    no rows of ids, which are read by their codes.
    """

    name: str
    table: str
    rows: int
    pooled: bool = False
    vocabulary: Vocabulary | None = None

    @property
    def keyed(self) -> bool:
        """Whether its ids have no vocabulary."""
        return isinstance(self.vocabulary, Keys)


@dataclass(frozen=True)
class Managed:
    """How a table's rows go from id to id: the policy, and the steps between two of its acts."""

    eviction: Eviction
    every: int


@dataclass(frozen=True)
class Table:
    """A physical table of `rows` x `width` float32. `pooled` tables serve bags alone; rows of
    `managed` ones go from id to id."""

    name: str
    rows: int
    width: int
    pooled: bool
    sharded: bool
    sharding: Sharding = "auto"
    managed: Managed | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the weights."""
        return self.rows * self.width * _FLOAT


@dataclass(frozen=True)
class Lookup:
    """One row read for an id of a feature: the id itself, or its hash when there is a salt.

    Lookups with equal salts read equal rows: those of features that share a table.
    """

    key: str
    feature: str
    table: str
    rows: int
    salt: int | None


@dataclass(frozen=True)
class Layout:
    """Tables and, per feature, the lookups whose vectors are concatenated to its width."""

    tables: tuple[Table, ...]
    lookups: dict[str, tuple[Lookup, ...]]
    features: dict[str, FeatureSpec]
    config: EmbeddingsConfig

    def table(self, name: str) -> Table:
        """The physical table of that name."""
        return next(table for table in self.tables if table.name == name)

    def width(self, feature: str) -> int:
        """D: the width of a feature's vectors."""
        return sum(self.table(lookup.table).width for lookup in self.lookups[feature])

    @property
    def hashed(self) -> bool:
        """Whether any row is found by hashing."""
        return any(lookup.salt is not None for of in self.lookups.values() for lookup in of)

    def require(self, feature: str, width: int) -> None:
        """Raises ConfigError where a model that fixes a feature's width finds another."""
        actual, table = self.width(feature), self.features[feature].table
        if actual != width:
            raise ConfigError(
                f"{feature} must have the width {width} of the model, and "
                f"embeddings.tables.{table} makes it {actual}: remove its width or probes"
            )

    def to_dict(self) -> dict[str, Any]:
        """A description for manifests and checkpoints."""
        return {
            "layout": self.config.layout,
            "hash_version": VERSION if self.hashed else None,
            "tables": [asdict(table) for table in self.tables],
            "lookups": [asdict(lookup) for lookups in self.lookups.values() for lookup in lookups],
        }


def make_layout(
    features: list[FeatureSpec],
    width: int,
    config: EmbeddingsConfig,
    *,
    summed: Iterable[tuple[str, ...]] = (),
) -> Layout:
    """Lay out `features` at `width`, or at the widths that `config.tables` gives.

    `summed` names groups of features whose vectors a model adds up before it transforms them. In
    one table their collisions could never be told apart (Coleman et al., 2023).

    Raises:
        ConfigError: a budget that is too small, probes that do not divide the width, a table that
            is not known or cannot have its name, an option of a table that its layout has no use
            for, or summed features in one table.
    """
    for f in features:
        if f.table in config.keyed and type(config) is PerFeature:
            raise ConfigError(
                f"embeddings.tables.{f.table}.vocabulary = 'none': in the layout 'per_feature' "
                "every id has a row of its own, which takes a vocabulary: choose "
                "embeddings.layout = 'hashed', 'unified' or 'evicting'"
            )
    rows, widths, lookups = _MAKE[type(config)](features, width, config)
    for name in rows:
        if name in _TAKEN:
            raise ConfigError(
                f"a table cannot be called {name!r}, which torch's modules have another use for: "
                "rename the feature, or leave it out"
            )
    names = dict.fromkeys([*rows, *(f.table for f in features)])
    for name in config.tables:
        if name not in names:
            raise ConfigError(
                f"embeddings.tables.{name}: no such table; there are: {', '.join(names)}"
            )
    tables = tuple(
        _table(name, rows[name], widths[name], lookups, features, config) for name in rows
    )
    layout = Layout(tables, lookups, {f.name: f for f in features}, config)
    for group in summed:
        _refuse_summed(layout, group)
    return layout


_Made = tuple[dict[str, int], dict[str, int], dict[str, tuple[Lookup, ...]]]


def _per_feature(features: list[FeatureSpec], width: int, config: PerFeature) -> _Made:
    """Exact rows, with room for more where the config asks for it."""
    rows, widths = {}, {}
    for f in features:
        special = _special(config, f.table, *_USEFUL)
        rows[f.table] = max(f.rows, special.rows or 0)
        widths[f.table] = special.width or width
    lookups: dict[str, tuple[Lookup, ...]] = {
        f.name: (Lookup(f.name, f.name, f.table, rows[f.table], None),) for f in features
    }
    return rows, widths, lookups


def _evicting(features: list[FeatureSpec], width: int, config: Evicting) -> _Made:
    """Exact rows where there is a vocabulary, and as many as are asked for where there is none."""
    keyed = {f.table for f in features if f.keyed}
    if not keyed:
        raise ConfigError(
            "embeddings.layout = 'evicting': rows go from id to id in tables without a vocabulary, "
            "and the model reads none: say of one of "
            f"{', '.join(dict.fromkeys(f.table for f in features))} that "
            "embeddings.tables.NAME.vocabulary = 'none', and how many rows it has"
        )
    rows, widths = {}, {}
    for f in features:
        special = _special(config, f.table, *_USEFUL, *(("vocabulary",) if f.keyed else ()))
        if f.keyed and (special.rows or 0) < _FEWEST:
            raise ConfigError(
                f"embeddings.tables.{f.table}.vocabulary = 'none': say as embeddings.tables."
                f"{f.table}.rows how many rows there are for its ids, {_FEWEST} at least"
            )
        rows[f.table] = (special.rows or 0) if f.keyed else max(f.rows, special.rows or 0)
        widths[f.table] = special.width or width
    lookups: dict[str, tuple[Lookup, ...]] = {
        f.name: (Lookup(f.name, f.name, f.table, rows[f.table], None),) for f in features
    }
    return rows, widths, lookups


def _hashed(features: list[FeatureSpec], width: int, config: Hashed) -> _Made:
    """The budget split over tables by the sizes of their vocabularies, at least one row each."""
    sizes, specials = {}, {}
    for f in features:
        useful = ("vocabulary", "rows", "width", "sharding")
        special = _special(config, f.table, *(useful if f.keyed else ("width", "sharding")))
        if f.keyed and special.rows is None:
            raise ConfigError(
                f"embeddings.tables.{f.table}.vocabulary = 'none': the budget is shared by numbers "
                f"of ids; say as embeddings.tables.{f.table}.rows how many its share is for"
            )
        sizes[f.table], specials[f.table] = special.rows or f.rows, special
    widths = {table: special.width or width for table, special in specials.items()}
    budget = _budget(config)
    least = sum(widths.values())
    if least > budget:
        raise _too_small(config, least)
    # as many rows per id as the budget allows, once each table has its first
    per_id = (budget - least) / sum(sizes[table] * widths[table] for table in sizes)
    rows = {table: 1 + int(size * per_id) for table, size in sizes.items()}
    lookups: dict[str, tuple[Lookup, ...]] = {
        f.name: (Lookup(f.name, f.name, f.table, rows[f.table], salt_of(f.table)),)
        for f in features
    }
    return rows, widths, lookups


def _unified(features: list[FeatureSpec], width: int, config: Unified) -> _Made:
    """One table or a few for everything; each (table, probe) has its own salt.

    Source: Coleman et al., "Unified embedding", NeurIPS 2023.
    """
    if width % config.probes:
        raise ConfigError(f"embeddings.probes = {config.probes} does not divide the width {width}")
    narrow, count = width // config.probes, config.unified_tables
    names = [UNIFIED] if count == 1 else [f"{UNIFIED}_{n}" for n in range(count)]
    for name in names:
        _special(config, name, "sharding")
    rows = int(_budget(config) // (narrow * count))
    if rows < 1:
        raise _too_small(config, narrow * count)
    lookups = {}
    probes_of: dict[str, tuple[tuple[int, str], ...]] = {}  # of a table: salt, physical table
    for f in features:
        if f.table not in probes_of:
            useful = ("vocabulary", "probes") if f.keyed else ("probes",)
            probes = _special(config, f.table, *useful).probes or config.probes
            turn = salt_of(f.table) % count  # its own: it stays when other features come and go
            probes_of[f.table] = tuple(
                (salt_of(f.table, probe), names[(turn + probe) % count]) for probe in range(probes)
            )
        lookups[f.name] = tuple(
            Lookup(f"{f.name}#{probe}", f.name, physical, rows, salt)
            for probe, (salt, physical) in enumerate(probes_of[f.table])
        )
    return dict.fromkeys(names, rows), dict.fromkeys(names, narrow), lookups


_MAKE: dict[type[EmbeddingsConfig], Callable[[list[FeatureSpec], int, Any], _Made]] = {
    PerFeature: _per_feature,
    Hashed: _hashed,
    Unified: _unified,
    Evicting: _evicting,
}


def _special(config: EmbeddingsConfig, table: str, *useful: str) -> TableConfig:
    """What is set for a table. Raises ConfigError for options that the layout has no use for."""
    special = config.tables.get(table, TableConfig())
    for option in sorted(special.model_fields_set - set(useful)):
        raise ConfigError(
            f"embeddings.tables.{table}.{option} means nothing in the layout {config.layout!r}; "
            f"it takes: {', '.join(useful)}"
        )
    return special


def _budget(config: Hashed | Unified) -> int:
    """The budget in numbers of float32."""
    return int(config.budget_mb * 1e6 / _FLOAT)


def _too_small(config: Hashed | Unified, least: int) -> ConfigError:
    return ConfigError(
        f"embeddings.budget_mb = {config.budget_mb} is less than a row for every table: "
        f"{least * _FLOAT / 1e6} at least"
    )


def _table(
    name: str,
    rows: int,
    width: int,
    lookups: dict[str, tuple[Lookup, ...]],
    features: list[FeatureSpec],
    config: EmbeddingsConfig,
) -> Table:
    """A physical table; it serves bags alone when all features that read it are bags."""
    readers = features  # of the unified layout: a bag's probes are pooled in all tables, or in none
    if not isinstance(config, Unified):
        readers = [f for f in features if any(lookup.table == name for lookup in lookups[f.name])]
    sharding = config.tables.get(name, TableConfig()).sharding
    large = rows * width * _FLOAT > config.shard_above_mb * 1e6
    return Table(
        name,
        rows,
        width,
        pooled=all(f.pooled for f in readers),
        sharded=large if sharding == "auto" else sharding != "replicated",
        sharding=sharding,
        managed=Managed(config.eviction, config.take_in_every)
        if isinstance(config, Evicting) and any(f.table == name and f.keyed for f in features)
        else None,
    )


def _refuse_summed(layout: Layout, group: tuple[str, ...]) -> None:
    vocabularies: dict[str, str] = {}  # physical table -> a feature of the group that lies in it
    for feature in group:
        for lookup in layout.lookups[feature]:
            first = vocabularies.setdefault(lookup.table, feature)
            if layout.features[first].table != layout.features[feature].table:
                raise ConfigError(
                    f"{first} and {feature} are summed with each other and cannot share the table "
                    f"{lookup.table!r}: choose embeddings.layout = 'hashed' or 'per_feature'"
                )
