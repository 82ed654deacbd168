"""Options of embedding tables, in training and as exported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Sharding = Literal["auto", "replicated", "table_wise", "row_wise", "column_wise"]


Dtype = Literal["fp32", "fp16", "int8", "int4"]


class TableConfig(BaseModel):
    """What is special about one table. Tables have the names of their features, unless features
    share one; those of the unified layout are `unified`, or `unified_0`, `unified_1`, ..."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None = Field(
        None, ge=1, description="Room for this many ids, if there are fewer yet (per_feature)."
    )
    width: int | None = Field(
        None, ge=1, description="Width of the vectors, where it is free (per_feature, hashed)."
    )
    probes: int | None = Field(
        None, ge=1, description="Rows looked up per id, which makes it wider (unified)."
    )
    sharding: Sharding = Field("auto", description="How the table lies on several processes.")


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
    unified_tables: int = Field(
        1, ge=1, description="Physical tables of the unified layout, over which probes take turns."
    )
    init_std: float = Field(0.02, gt=0, description="Standard deviation of initial weights.")
    init_range: float | None = Field(
        None, gt=0, description="Initial weights evenly from minus to plus this, instead."
    )
    shard_above_mb: float = Field(
        64, ge=0, description="Tables above this size are sharded, with a fused optimizer."
    )
    tables: dict[str, TableConfig] = Field({}, description="What is special about single tables.")


class QuantisationConfig(BaseModel):
    """How exported tables are stored. A table that loses too much falls back to more bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
