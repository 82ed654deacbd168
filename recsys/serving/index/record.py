"""What a bundle says of how an index was chosen."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from recsys.serving.index.options import IndexConfig, PromiseConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredIndex(_Frozen):
    """An index as it was measured."""

    config: IndexConfig = Field(description="The kind of the index and its options.")
    items: int = Field(description="Items that it was built of.")
    recall: float = Field(description="Share of the exact k best that it finds.")
    queries_per_second: float = Field(description="In batches of 256.")
    milliseconds: float = Field(description="Of a query that comes alone, the median.")
    bytes_per_item: float = Field(description="Of all that a search needs in memory.")

    def megabytes(self, items: int) -> float:
        """Of so many items, in 10^6 bytes."""
        return self.bytes_per_item * items / 1e6


class PromiseRecord(_Frozen):
    """How an index came to be: what was promised, what was measured, and where."""

    promise: PromiseConfig = Field(description="What was asked for.")
    chosen: MeasuredIndex = Field(description="Of all items.")
    candidates: tuple[MeasuredIndex, ...] = Field(
        description="On a sample, every kind with the efforts that were tried, rising."
    )
    missed: tuple[MeasuredIndex, ...] = Field(
        (), description="What kept the promise on the sample and not with all items."
    )
    kept_recall: float = Field(description="Of the chosen one with the queries of `queries.npy`.")
    machine: str = Field(description="Processor and library.")
    threads: int = Field(description="That searched.")
