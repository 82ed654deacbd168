"""Layout: which rows of which table hold an id of a feature. Knows nothing of TorchRec."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.embeddings.hashing import VERSION, hash_rows, salt_of


class EmbeddingsConfig(BaseModel):
    """How ids become vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["per_feature", "hashed", "unified"] = Field(
        "per_feature",
        description="per_feature: exact rows. hashed: a byte budget split by vocabulary size. "
        "unified: one table for all features, several hashed probes concatenated.",
    )
    budget_mb: float | None = Field(
        None, gt=0, description="Bytes of all tables (10^6, float32); needed by hashed and unified."
    )
    probes: int = Field(2, ge=1, description="Rows looked up per id in the unified layout.")
    init_std: float = Field(0.02, gt=0, description="Standard deviation of initial weights.")
    shard_above_mb: float = Field(
        64, ge=0, description="Tables above this size are sharded, with a fused optimizer."
    )


@dataclass(frozen=True)
class FeatureSpec:
    """An embedded feature: its table, the rows of its vocabulary, and whether it is a bag."""

    name: str
    table: str
    vocabulary: int
    pooled: bool = False


@dataclass(frozen=True)
class Table:
    """A physical table of `rows` x `width` float32. `pooled` tables serve bags alone."""

    name: str
    rows: int
    width: int
    pooled: bool
    sharded: bool


@dataclass(frozen=True)
class Lookup:
    """One row read for an id of a feature: the id itself, or its hash when there is a salt."""

    key: str
    feature: str
    table: str
    rows: int
    salt: int | None

    def __call__(self, ids: Tensor) -> Tensor:
        """Physical rows, of the shape of `ids`."""
        return ids if self.salt is None else hash_rows(ids, self.salt, self.rows)


@dataclass(frozen=True)
class Layout:
    """Tables and, per feature, the lookups whose vectors are concatenated to `width`."""

    width: int
    tables: tuple[Table, ...]
    lookups: dict[str, tuple[Lookup, ...]]
    pooled: frozenset[str]  # features that are bags
    init_std: float

    def to_dict(self) -> dict[str, Any]:
        """A description for manifests."""
        return {
            "hash_version": VERSION,
            "tables": [asdict(table) for table in self.tables],
            "lookups": [asdict(one) for found in self.lookups.values() for one in found],
        }


def make_layout(features: list[FeatureSpec], width: int, config: EmbeddingsConfig) -> Layout:
    """Lay out `features` at `width`.

    Raises:
        ConfigError: a hashed layout without a budget, or probes that do not divide the width.
    """
    lookups: dict[str, tuple[Lookup, ...]]
    if config.layout == "per_feature":
        rows = {f.table: f.vocabulary for f in features}
        tables = _tables(features, rows, width, config)
        lookups = {
            f.name: (Lookup(f.name, f.name, f.table, rows[f.table], None),) for f in features
        }
    else:
        if config.budget_mb is None:
            raise ConfigError(
                f"embeddings.layout = {config.layout!r} needs embeddings.budget_mb, "
                "for example embeddings.budget_mb = 1.6"
            )
        budget = config.budget_mb * 1e6 / 4
        if config.layout == "hashed":
            tables, lookups = _hashed(features, width, int(budget // width), config)
        else:
            tables, lookups = _unified(features, width, budget, config)
    pooled = frozenset(f.name for f in features if f.pooled)
    return Layout(width, tables, lookups, pooled, config.init_std)


def _tables(
    features: list[FeatureSpec], rows: dict[str, int], width: int, config: EmbeddingsConfig
) -> tuple[Table, ...]:
    """One table a name; it serves bags alone when all features that share it are bags."""
    return tuple(
        Table(
            name,
            count,
            width,
            pooled=all(f.pooled for f in features if f.table == name),
            sharded=count * width * 4 > config.shard_above_mb * 1e6,
        )
        for name, count in rows.items()
    )


def _hashed(
    features: list[FeatureSpec], width: int, budget_rows: int, config: EmbeddingsConfig
) -> tuple[tuple[Table, ...], dict[str, tuple[Lookup, ...]]]:
    """The budget split over tables by the sizes of their vocabularies, at least one row each."""
    sizes = {f.table: f.vocabulary for f in features}
    total = sum(sizes.values())
    rows = {t: max(1, round(size / total * budget_rows)) for t, size in sizes.items()}
    lookups: dict[str, tuple[Lookup, ...]] = {
        f.name: (Lookup(f.name, f.name, f.table, rows[f.table], salt_of(f.table)),)
        for f in features
    }
    return _tables(features, rows, width, config), lookups


def _unified(
    features: list[FeatureSpec], width: int, budget: float, config: EmbeddingsConfig
) -> tuple[tuple[Table, ...], dict[str, tuple[Lookup, ...]]]:
    """One table for everything; each (table, probe) has its own salt. Coleman et al., 2023."""
    if width % config.probes:
        raise ConfigError(f"embeddings.probes = {config.probes} does not divide the width {width}")
    narrow = width // config.probes
    rows = max(1, int(budget // narrow))
    table = Table("unified", rows, narrow, False, rows * narrow * 4 > config.shard_above_mb * 1e6)
    lookups = {
        f.name: tuple(
            Lookup(f"{f.name}#{probe}", f.name, table.name, rows, salt_of(f.table, probe))
            for probe in range(config.probes)
        )
        for f in features
    }
    return (table,), lookups
