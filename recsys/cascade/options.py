"""Options of a cascade: which finished runs are its parts, and how much each of them keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from feature_store.options import Options
from recsys.lists.stage_names import STAGES
from recsys.options import ModelConfig

OrderBy = Literal["probability", "revenue", "profit"]
PartName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]


class GeneratorPart(Options):
    """A finished run of a retriever, which finds candidates."""

    run: Path = Field(description="Its folder.")
    budget: int = Field(100, ge=1, description="Items that it may find for a request.")


class RankerPart(Options):
    """A finished run of a ranker."""

    run: Path = Field(description="Its folder.")
    task: str | None = Field(
        None,
        description="Which of its labels it is asked for, by default the first.",
    )


class FinePart(RankerPart):
    """A finished run of a ranker, which orders what is left."""

    place_weight: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="What the order of the candidates counts beside it: its odds are divided by "
        "(5 + place) to this power.",
    )


class CoarsePart(RankerPart):
    """A finished run of a cheap ranker, which looks at all candidates."""

    keep: int = Field(100, ge=1, description="Items that go on to the fine ranker.")


class DiversityOptions(Options):
    """A last step that trades scores for different categories, see `recsys.lists.diversify`."""

    category: str = Field(description="Column of the catalogue: an id or a bag of items.")
    weight: float = Field(
        gt=0, allow_inf_nan=False, description="Score that a pair of different categories is worth."
    )


class CascadeConfig(ModelConfig):
    """Generators find candidates, a coarse ranker keeps some of them, a fine one orders those."""

    name: Literal["cascade"] = "cascade"
    generators: dict[PartName, GeneratorPart] = Field(
        min_length=1, description="What finds candidates, by a name of your own."
    )
    coarse: CoarsePart | None = Field(
        None, description="What keeps some of the candidates; without it the fine ranker sees all."
    )
    fine: FinePart | None = Field(
        None, description="What orders them; without it the generators' ranks do."
    )
    order_by: OrderBy = Field(
        "probability",
        description="What the fine ranker orders by: the probability, that times the item's last "
        "known price, or that times its price less its cost.",
    )
    diversity: DiversityOptions | None = Field(
        None, description="A last step that makes lists diverse."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        taken = [name for name in self.generators if name in STAGES]
        if taken:
            raise ValueError(f"generators.{taken[0]}: that is what another stage is called")
        if self.coarse is not None and self.fine is None:
            raise ValueError("coarse keeps what a fine ranker orders: name it in cascade.fine")
        if self.order_by != "probability" and self.fine is None:
            raise ValueError(
                f"order_by = '{self.order_by}' needs a ranker: name it in cascade.fine"
            )
        return self

    @property
    def rankers(self) -> dict[str, RankerPart]:
        """The rankers by their stages."""
        both = {"coarse": self.coarse, "fine": self.fine}
        return {stage: part for stage, part in both.items() if part is not None}

    @property
    def parts(self) -> dict[str, GeneratorPart | RankerPart]:
        """All parts by the names of their stages."""
        return {**self.generators, **self.rankers}
