"""Options of the indices that a bundle may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from feature_store.options import Options
from recsys.options import Chosen

Codes = Literal["flat", "fp16", "sq8"]


class ExactConfig(Options):
    """All items are compared with a query."""

    kind: Literal["exact"] = Field("exact", description="All inner products.")

    def __str__(self) -> str:
        return "exact"

    @property
    def label(self) -> str:
        """What it is, whatever the effort of a search."""
        return "exact"


class ApproximateConfig(Options):
    """What all indices share that may miss an item; `way_out` says what misses fewer."""

    way_out: ClassVar[str]

    recall_target: float = Field(
        0.95, gt=0, le=1, description="Least recall@100 against exact search, measured at export."
    )


class IVFConfig(ApproximateConfig):
    """Items in lists around centres; the lists nearest to a query are compared with it."""

    way_out = "more probes"

    kind: Literal["ivf"] = Field("ivf", description="Lists around centres, of which few are read.")
    codes: Codes = Field(
        "flat",
        description="What lists hold of a number: 4 bytes, 2 (scores to 3 digits) or 1 (to 1).",
    )
    lists: int | None = Field(
        None, ge=1, description="Lists; by default twice the square root of the items."
    )
    probes: int = Field(8, ge=1, description="Lists that are read for a query.")

    def __str__(self) -> str:
        return f"ivf of {self.codes}, {self.probes} probes"

    @property
    def label(self) -> str:
        """What it is, whatever the effort of a search."""
        return f"ivf of {self.codes}"


class PQConfig(ApproximateConfig):
    """A shortlist by a few bits of each item, from the lists nearest to a query, ranked again."""

    way_out = "a longer shortlist or more probes"

    kind: Literal["pq"] = Field("pq", description="A shortlist by product quantisation.")
    parts: int | None = Field(
        None,
        ge=1,
        description="Parts of a vector, which get 4 bits each: a divisor of the width; by default "
        "half of it.",
    )
    refine: Codes = Field("flat", description="What the shortlist is ranked by: as ivf's codes.")
    shortlist: int = Field(10, ge=1, description="Items on the shortlist for each of a list.")
    lists: int | None = Field(None, ge=1, description="As ivf's.")
    probes: int = Field(8, ge=1, description="Lists that are read for a query.")

    def __str__(self) -> str:
        again = f"{self.shortlist} times as many by {self.refine}"
        return f"pq, {self.probes} probes, {again}"

    @property
    def label(self) -> str:
        """What it is, whatever the effort of a search."""
        return f"pq, then {self.refine}"


class HNSWConfig(ApproximateConfig):
    """Items joined to their neighbours, along which a search goes from one to a nearer one."""

    way_out = "more effort or neighbours"

    kind: Literal["hnsw"] = Field("hnsw", description="A graph of neighbours.")
    codes: Codes = Field("flat", description="What the graph holds of a number: as ivf's.")
    neighbours: int = Field(
        16, ge=2, le=256, description="Neighbours of an item on upper floors; twice as many below."
    )
    effort: int = Field(
        64, ge=1, description="Items that a search keeps in view; at least twice those asked for."
    )

    def __str__(self) -> str:
        return f"hnsw{self.neighbours} of {self.codes}, effort {self.effort}"

    @property
    def label(self) -> str:
        """What it is, whatever the effort of a search."""
        return f"hnsw{self.neighbours} of {self.codes}"


class FaissConfig(ApproximateConfig):
    """An index that FAISS makes, for those who know what they want."""

    way_out = "another factory"

    kind: Literal["faiss"] = Field("faiss", description="What FAISS finds, scored exactly.")
    factory: str = Field("HNSW32,Flat", description="faiss.index_factory string.")

    def __str__(self) -> str:
        return self.factory

    @property
    def label(self) -> str:
        """What it is, whatever the effort of a search."""
        return self.factory


class PrefixConfig(ApproximateConfig):
    """A shortlist by the first numbers of nested vectors, then ranked by the whole ones."""

    way_out = "a longer shortlist"

    kind: Literal["prefix"] = Field("prefix", description="A shortlist by nested vectors.")
    prefix: int = Field(16, ge=1, description="Numbers of a vector: one of retriever.matryoshka.")
    shortlist: int = Field(200, ge=1, description="Items on the shortlist, at least.")

    def __str__(self) -> str:
        return f"of {self.shortlist} by {self.prefix} numbers"

    @property
    def label(self) -> str:
        """What it is, whatever the effort of a search."""
        return f"by {self.prefix} numbers"


class PromiseConfig(Options):
    """Whatever index keeps a promise at the least cost: it is measured at export."""

    kind: Literal["promise"] = Field("promise", description="The cheapest that keeps a promise.")
    recall: float = Field(0.99, gt=0, le=1, description="Least share of the exact k best found.")
    k: int = Field(10, ge=1, description="How many best items that is about.")
    memory_mb: float | None = Field(
        None, gt=0, description="Most that the search may keep in memory, in 10^6 bytes."
    )
    sample: int = Field(
        100_000, ge=1, description="Items that every kind is built on, to choose one for all."
    )
    queries: int = Field(
        1000, ge=1, description="Users' vectors that recall and speed are measured with."
    )

    def __str__(self) -> str:
        within = "" if self.memory_mb is None else f" within {self.memory_mb:g} MB"
        return f"recall@{self.k} of {self.recall:g}{within}"


IndexConfig = Annotated[
    ExactConfig | IVFConfig | PQConfig | HNSWConfig | PrefixConfig | FaissConfig,
    Field(discriminator="kind"),
]
"""An index of one kind."""


class OfKindOrPromise(Chosen):
    """Annotates what a run may ask for: the kind alone will do, and a table without it means a
    promise where it names a recall."""

    def table(self, value: Any) -> Any:
        """The table of options that is meant."""
        if isinstance(value, Mapping) and "recall" not in value:
            return value
        return super().table(value)


AnyIndexConfig = Annotated[
    ExactConfig | IVFConfig | PQConfig | HNSWConfig | PrefixConfig | FaissConfig | PromiseConfig,
    Field(discriminator="kind"),
    OfKindOrPromise("kind", default="promise"),
]
"""An index of one kind, or a promise."""
