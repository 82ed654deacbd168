"""Options of serving."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class IndexConfig(BaseModel):
    """How items are searched at serving."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["exact", "faiss", "prefix"] = Field(
        "exact",
        description="prefix: a shortlist by the first numbers of nested vectors, then ranked by "
        "the whole ones.",
    )
    prefix: int = Field(16, ge=1, description="Of kind prefix: one of retriever.matryoshka.")
    shortlist: int = Field(
        200, ge=1, description="Of kind prefix: items on the shortlist, at least."
    )
    factory: str = Field("HNSW32,Flat", description="faiss.index_factory string.")
    recall_target: float = Field(
        0.95, gt=0, le=1, description="Least recall@100 against exact search, measured at export."
    )
