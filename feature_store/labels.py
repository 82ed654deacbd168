"""Labels: which events a ranker learns from, and what counts as a positive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.options import Options
from feature_store.schema import Schema

if TYPE_CHECKING:  # a config has labels, and is read without the engine
    import ibis.expr.types as ir

_DISTINCT, _SHOWN = 1000, 6  # values of labels: looked at, and told


class LabelConfig(Options):
    """Turns what the log holds, such as stars, into 0 and 1."""

    positive_from: float | None = Field(
        None, description="Labels of at least this are 1, others 0; by default they are 0 or 1."
    )
    leave_out: tuple[float, ...] = Field(
        (), description="Events with these labels are left out, from training and figures alike."
    )

    def parts(self) -> dict[str, object]:
        """What figures depend on: part of the protocol's fingerprint."""
        return {f"labels.{name}": value for name, value in self.model_dump(mode="json").items()}


def labelled(engine: Engine, events: ir.Table, schema: Schema, config: LabelConfig) -> ir.Table:
    """The events, with 0, 1 or nothing in the column of the label's role. What has no label stays:
    it is part of histories.

    Raises:
        DataError: the log has no labels, or some are neither 0 nor 1 and no rule makes them so.
    """
    if schema.label is None:
        raise DataError(
            "a ranker learns from labels, and this log has none: name the column with the "
            "label role in the schema (data.columns.label of a parquet source)"
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
