"""Search spaces, and options of a search."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from feature_store.options import Options
from recsys.retrievers import NamedRetriever

if TYPE_CHECKING:  # optuna is imported where it is used: every program reads a TuneConfig
    from optuna.distributions import BaseDistribution


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a bound must be a finite number")
    return value


Number = Annotated[int | float, BeforeValidator(_number)]


class Domain(Options):
    """The values that one option may take: `low` to `high`, or one of `choices`.

    Whole numbers are drawn where both bounds are integers.
    """

    low: Number | None = Field(None, description="Smallest value.")
    high: Number | None = Field(None, description="Largest value.")
    log: bool | None = Field(None, description="Draw evenly over orders of magnitude.")
    choices: tuple[Any, ...] | None = Field(None, description="Any values of TOML, lists too.")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, tree: Any) -> Any:
        keys = ("low", "high", "log", "choices")
        for key in tree if isinstance(tree, Mapping) else ():
            if key not in keys:
                raise ValueError(f"{key!r} is unknown; known: {', '.join(keys)}")
        return tree

    @model_validator(mode="after")
    def _check(self) -> Domain:
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if (len(bounds) == 2) == (self.choices is not None) or len(bounds) == 1:
            raise ValueError("give low and high, or choices")
        if self.choices is not None:
            if self.log is not None or not self.choices:
                raise ValueError("choices must hold at least one value, and know no log")
            if len(set(map(json.dumps, self.choices))) < len(self.choices):
                raise ValueError("choices must differ")
        elif bounds[0] >= bounds[1]:
            raise ValueError("low must be below high")
        elif self.log and bounds[0] <= 0:
            raise ValueError("log needs a low above 0")
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that must be allowed for all to be: both bounds, or every choice."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """Optuna's view. Choices are drawn as JSON texts, since it takes no lists."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices is not None:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=bool(self.log))
        return FloatDistribution(self.low, self.high, log=bool(self.log))

    def value(self, drawn: Any) -> Any:
        """The option's value from what `distribution` drew."""
        return json.loads(drawn) if self.choices is not None else drawn


class TuneConfig(Options):
    """How `recsys tune` searches. Values are compared on validation alone."""

    trials: int = Field(30, ge=1, description="At most this many combinations of values.")
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="Tree-structured Parzen estimator, or independent draws."
    )
    metric: str | None = Field(
        None, description="The highest validation figure wins; by default trainer.metric."
    )
    timeout: float | None = Field(
        None,
        gt=0,
        description="Minutes after which no further trial is begun; the budget of a race, by "
        "default 30.",
    )
    retrievers: tuple[NamedRetriever, ...] = Field(
        (),
        description="Retrievers that race for the highest validation figure, names or tables with "
        "their options, instead of a search for the options of one.",
    )
    space: dict[str, Domain] = Field(
        {}, description="Options and their values; empty takes what the retriever proposes."
    )

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        """Keys with quotes, without them, and those of overrides come to the same."""
        return dict(_leaves(space)) if isinstance(space, Mapping) else space


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and value
        if inner and all(isinstance(entry, Mapping) for entry in value.values()):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
