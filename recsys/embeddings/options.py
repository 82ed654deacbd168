"""Options of embedding tables, in training and as exported."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from feature_store.options import Options
from recsys.options import Chosen, changed

Sharding = Literal["auto", "replicated", "table_wise", "row_wise", "column_wise"]


Eviction = Literal["lru", "lfu", "distance_lfu"]
Dtype = Literal["fp32", "fp16", "int8", "int4"]
_BUDGET = "Bytes of all tables (10^6, float32)."


class TableConfig(Options):
    """What is special about one table. Tables have the names of their features, unless features
    share one; those of the unified layout are `unified`, or `unified_0`, `unified_1`, ..."""

    vocabulary: Literal["log", "none"] = Field(
        "log",
        description="Where its ids are listed: those of the log, or nowhere. Without a list they "
        "are read by 64-bit keys: new ones need nothing, and nothing grows with them (hashed, "
        "unified, evicting).",
    )
    rows: int | None = Field(
        None,
        ge=1,
        description="Room for this many ids, if there are fewer yet (per_feature, evicting). Where "
        "they have no vocabulary: how many its share of the budget is for (hashed), or how many "
        "have rows at a time, with one of the unknown (evicting).",
    )
    width: int | None = Field(
        None,
        ge=1,
        description="Width of the vectors, where it is free (per_feature, hashed, evicting).",
    )
    probes: int | None = Field(
        None, ge=1, description="Rows looked up per id, which makes it wider (unified)."
    )
    sharding: Sharding = Field("auto", description="How the table lies on several processes.")


class EmbeddingsConfig(Options):
    """How ids become vectors; `layout` chooses one of the three kinds below."""

    layout: str
    init_std: float = Field(0.02, gt=0, description="Standard deviation of initial weights.")
    init_range: float | None = Field(
        None, gt=0, description="Initial weights evenly from minus to plus this, instead."
    )
    shard_above_mb: float = Field(
        64, ge=0, description="Tables above this size are sharded, with a fused optimizer."
    )
    tables: dict[str, TableConfig] = Field({}, description="What is special about single tables.")

    @property
    def keyed(self) -> tuple[str, ...]:
        """The tables whose ids have no vocabulary."""
        return tuple(name for name, of in self.tables.items() if of.vocabulary == "none")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.init_range is not None and changed(self, "init_std"):
            raise ValueError("init_std and init_range are two ways to draw weights: give one")
        return self


class Evicting(EmbeddingsConfig):
    """Exact rows; those of a table without a vocabulary go to the ids that are worth most of late,
    and from the others."""

    layout: Literal["evicting"] = "evicting"
    eviction: Eviction = Field(
        "distance_lfu",
        description="Whose row a new id gets: of who was read longest ago, least often, or least "
        "often for how long ago.",
    )
    take_in_every: int = Field(
        1,
        ge=1,
        description="Ids are taken in every so many steps, of what these read; in between new ones "
        "read the row of the unknown.",
    )


class PerFeature(EmbeddingsConfig):
    """Exact rows, a table for each feature."""

    layout: Literal["per_feature"] = "per_feature"


class Hashed(EmbeddingsConfig):
    """A byte budget that is split over tables by the sizes of their vocabularies."""

    layout: Literal["hashed"] = "hashed"
    budget_mb: float = Field(gt=0, description=_BUDGET)


class Unified(EmbeddingsConfig):
    """One table for all features, several hashed probes concatenated."""

    layout: Literal["unified"] = "unified"
    budget_mb: float = Field(gt=0, description=_BUDGET)
    probes: int = Field(2, ge=1, description="Rows looked up per id.")
    unified_tables: int = Field(
        1, ge=1, description="Physical tables, over which probes take turns."
    )


AnyEmbeddings = Annotated[
    PerFeature | Hashed | Unified | Evicting,
    Field(discriminator="layout"),
    Chosen("layout", default="per_feature"),
]


class QuantisationConfig(Options):
    """How exported tables are stored. A table that loses too much falls back to more bits."""

    dtype: Dtype = Field("fp32", description="Of all tables.")
    tables: dict[str, Dtype] = Field({}, description="Tables with a dtype of their own.")
    max_error: float = Field(
        0.1,
        gt=0,
        description="Largest error of a table: root mean square, over that of its weights.",
    )
    max_loss: float = Field(
        0.002, ge=0, description="Largest fall of recall (retrievers) or AUC (rankers) on a sample."
    )
    sample: int = Field(2048, ge=1, description="Requests, or rows, of the sample.")
