"""Options of the indices that a bundle may have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from feature_store.options import Options


class ExactConfig(Options):
    """All items are compared with a query."""

    kind: Literal["exact"] = Field("exact", description="All inner products.")


class ApproximateConfig(Options):
    """What all indices share that may miss an item; `way_out` says what misses fewer."""

    way_out: ClassVar[str]

    recall_target: float = Field(
        0.95, gt=0, le=1, description="Least recall@100 against exact search, measured at export."
    )


class FaissConfig(ApproximateConfig):
    """An index that FAISS makes."""

    way_out = "another factory"

    kind: Literal["faiss"] = Field("faiss", description="What FAISS finds, scored exactly.")
    factory: str = Field("HNSW32,Flat", description="faiss.index_factory string.")

    def __str__(self) -> str:
        return self.factory


class PrefixConfig(ApproximateConfig):
    """A shortlist by the first numbers of nested vectors, then ranked by the whole ones."""

    way_out = "a longer shortlist"

    kind: Literal["prefix"] = Field("prefix", description="A shortlist by nested vectors.")
    prefix: int = Field(16, ge=1, description="Numbers of a vector: one of retriever.matryoshka.")
    shortlist: int = Field(200, ge=1, description="Items on the shortlist, at least.")

    def __str__(self) -> str:
        return f"of {self.shortlist} by {self.prefix} numbers"


IndexConfig = Annotated[ExactConfig | FaissConfig | PrefixConfig, Field(discriminator="kind")]
