"""Labels: which events a ranker learns from, and what counts as a positive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.options import Options
from feature_store.schema import Schema

if TYPE_CHECKING:  # a config has labels, and is read without the engine
    import ibis.expr.types as ir

_DISTINCT, _SHOWN = 1000, 6  # values of labels: looked at, and told


class NegativesConfig(Options):
    """Items that are put beside every positive, as what its user did not choose.

    They are drawn independently of each other, among the items that had an event of anybody before
    the positive's second, never one of the user's own.
    """

    per_positive: int = Field(4, ge=1, le=1000, description="Items drawn for each positive.")
    drawn: Literal["uniform", "popularity"] = Field(
        "uniform", description="Each item alike, or as often as it occurs in training."
    )
    exponent: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Power of the training events by which popularity draws; 0 is uniform.",
    )
    seed: int = Field(0, ge=0, description="Which items are drawn.")


class LabelConfig(Options):
    """Turns what the log holds, such as stars, into 0 and 1."""

    positive_from: float | None = Field(
        None, description="Labels of at least this are 1, others 0; by default they are 0 or 1."
    )
    leave_out: tuple[float, ...] = Field(
        (), description="Events with these labels are left out, from training and figures alike."
    )
    negatives: NegativesConfig | None = Field(
        None,
        description="Draw items that users did not choose, where a log has no impressions.",
    )

    def parts(self) -> dict[str, object]:
        """What figures depend on: part of the protocol's fingerprint."""
        values = self.model_dump(mode="json", exclude=None if self.negatives else {"negatives"})
        return {f"labels.{name}": value for name, value in values.items()}


def labelled(engine: Engine, events: ir.Table, schema: Schema, config: LabelConfig) -> ir.Table:
    """The events, with 0, 1 or nothing in the column of the label's role. What has no label stays:
    it is part of histories. Where negatives are drawn a log needs no labels: all events are
    positives.

    Raises:
        DataError: the log has no labels, or some are neither 0 nor 1 and no rule makes them so.
    """
    if schema.label is None:
        if config.negatives is not None and (config.positive_from or config.leave_out):
            raise DataError(
                "labels.positive_from and labels.leave_out judge labels, and this log has none: "
                "leave them out, or name the column with the label role in the schema"
            )
        if config.negatives is not None:
            return events
        raise DataError(
            "a ranker learns from labels, and this log has none: name the column with the "
            "label role in the schema (data.columns.label of a parquet source), or have "
            "negatives drawn with labels.negatives.per_positive = 4"
        )
    if config.leave_out:
        left_out = events[schema.label].isin(config.leave_out).fill_null(False)
        events = events.filter(~left_out)
    label = events[schema.label]
    if config.positive_from is not None:
        return events.mutate(**{schema.label: (label >= config.positive_from).cast("float32")})
    other = engine.collect(events.filter(label.notin([0, 1])).limit(1))
    if other.num_rows:
        labels = events.filter(label.notnull()).select(schema.label)
        distinct = engine.collect(labels.distinct().limit(_DISTINCT))
        values = sorted(distinct[schema.label].to_pylist())
        shown = ", ".join(f"{value:g}" for value in values[:_SHOWN])
        raise DataError(
            f"column {schema.label!r} holds {shown}{', ...' if len(values) > _SHOWN else ''}, and "
            "labels are 0 or 1: set labels.positive_from to the least value that is a positive, "
            f"such as labels.positive_from = {values[len(values) * 3 // 5]:g}"
        )
    return events.mutate(**{schema.label: label.cast("float32")})
