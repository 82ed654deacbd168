"""What is measured."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from feature_store.options import Options
from recsys.figure import Figure, first_cut


class EvaluationConfig(Options):
    """What is measured."""

    ks: tuple[int, ...] = Field((1, 5, 10, 20, 50, 100), description="Cut-offs of the lists.")
    batch_size: int = Field(512, ge=1, description="Users ranked at a time.")
    slice_k: int | None = Field(
        None,
        ge=1,
        description="Cut-off of the figures in slices, one of ks; by default 10, or the last.",
    )
    slice_columns: tuple[str, ...] = Field(
        (), description="Columns of users or items in the catalogue to slice by."
    )
    category: str | None = Field(
        None,
        description="Item column whose values make CategoryDiversity; the first bag by default.",
    )
    popularity_power: float = Field(
        0.5, ge=0, le=1, description="StratifiedRecall weighs targets by popularity to minus this."
    )
    replicates: int = Field(1000, ge=100, description="Bootstrap replicates of the intervals.")

    @field_validator("ks")
    @classmethod
    def _check(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1 or list(ks) != sorted(set(ks)):
            raise ValueError("ks must be ascending positive numbers, each once")
        return ks

    @model_validator(mode="after")
    def _check_slices(self) -> Self:
        if self.slice_k is not None and self.slice_k not in self.ks:
            choices = ", ".join(map(str, self.ks))
            raise ValueError(f"slice_k = {self.slice_k} is not among ks: choose one of {choices}")
        return self

    @property
    def slice_cut(self) -> int:
        """The cut-off of the figures in slices."""
        return self.slice_k or first_cut(self.ks)

    @property
    def figures(self) -> list[str]:
        """Names of all that is measured of every log, such as NDCG@10."""
        from recsys.evaluation.metrics import METRICS  # needs torch, and options do not

        names = (*METRICS, "F1OfMeans", "Coverage", "Gini")
        return [str(Figure(name, k)) for k in self.ks for name in names]
