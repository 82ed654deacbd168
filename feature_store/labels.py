"""Labels: which events a ranker learns from, and what counts as a positive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from feature_store.columns import LABEL, fault_of, label_of
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.options import Options
from feature_store.schema import Schema

if TYPE_CHECKING:  # a config has labels, and is read without the engine
    import ibis.expr.types as ir

_DISTINCT, _SHOWN = 1000, 6  # values of labels: looked at, and told


class ListsConfig(Options):
    """A finished retriever, from whose lists negatives are drawn, each of a list's items alike.

    A list is made of the history that a row has. Items that may not be drawn are left out of it,
    and where nothing is left `labels.negatives.drawn` says what is drawn instead.
    """

    run: Path = Field(description="The folder of its run, over the same event log.")
    budget: int = Field(
        100, ge=1, description="Items that it finds for a row: as many as a cascade is to ask for."
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Of the items beside a positive, those that come from lists."
    )


class NegativesConfig(Options):
    """Items that are put beside every positive, as what its user did not choose.

    They are drawn independently of each other, among the items that had an event of anybody before
    the positive's second, never one of the user's own, or, with `repeats`, none of those that the
    user took at that second.
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
    repeats: bool = Field(
        False,
        description="For people who buy again: what a user had, or will have, and did not take at "
        "that second can be drawn like any other item.",
    )
    lists: ListsConfig | None = Field(
        None,
        description="Draw from what a finished retriever finds: beside those a ranker learns to "
        "order what it will be asked to.",
    )
    seed: int = Field(0, ge=0, description="Which items are drawn.")

    @property
    def listed(self) -> int:
        """How many of the items beside a positive come from lists, one at least where any do."""
        share = 0.0 if self.lists is None else self.lists.share
        return max(round(share * self.per_positive), self.lists is not None)


class TaskConfig(Options):
    """A label beside the first: what a column says, or what type the event is of."""

    column: str | None = Field(
        None, description="Column of events that holds it; where it is empty, a row has no label."
    )
    positive_from: float | None = Field(
        None, description="As labels.positive_from, of this column."
    )
    event_types: tuple[str, ...] = Field(
        (), description="Instead of a column: events of these types are 1, others 0."
    )
    among: tuple[str, ...] = Field(
        (),
        description="Only events of these types have this label: purchases among clicks, say, are "
        "what follows once somebody has clicked. By default all have.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.column is None) == (not self.event_types):
            raise ValueError("name a column or event_types, and not both")
        if self.column is None and self.positive_from is not None:
            raise ValueError("positive_from is of a column: name it")
        return self


def _task(name: str) -> str:
    if name.casefold() == LABEL:
        raise ValueError(f"{name!r} is the first task's name: call it otherwise")
    if fault := fault_of(name):
        raise ValueError(f"{name!r} {fault}: call it otherwise")
    return name


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
    tasks: dict[Annotated[str, AfterValidator(_task)], TaskConfig] = Field(
        {},
        description="Further labels of the same rows, by name, which a ranker predicts beside the "
        "first.",
    )

    def parts(self, lists: str | None = None) -> dict[str, object]:
        """What figures depend on: part of the protocol's fingerprint. What `negatives.lists` come
        from is known by its fingerprint `lists`, wherever its run lies."""
        unused = {name for name in ("negatives", "tasks") if not getattr(self, name)}
        values = self.model_dump(mode="json", exclude=unused)
        if self.negatives is not None and not self.negatives.repeats:
            del values["negatives"]["repeats"]  # older fingerprints stay right
        if self.negatives is not None and self.negatives.lists is None:
            del values["negatives"]["lists"]
        elif self.negatives is not None:
            values["negatives"]["lists"]["run"] = lists
        return {f"labels.{name}": value for name, value in values.items()}


def labelled(engine: Engine, events: ir.Table, schema: Schema, config: LabelConfig) -> ir.Table:
    """The events, with 0, 1 or nothing in the column of the label's role, and for further tasks in
    `label_of` them. What has no label stays: it is part of histories. Where negatives are drawn a
    log needs no labels: all events are positives.

    Raises:
        DataError: the log has no labels, or some are neither 0 nor 1 and no rule makes them so; a
            task names a column or event types that the log does not have.
    """
    if schema.label is None:
        if config.negatives is not None and (config.positive_from or config.leave_out):
            raise DataError(
                "labels.positive_from and labels.leave_out judge labels, and this log has none: "
                "leave them out, or name the column with the label role in the schema"
            )
        if config.negatives is not None:
            tasks = _labels_of_tasks(engine, events, schema, config)
            return events.mutate(**tasks) if tasks else events
        raise DataError(
            "a ranker learns from labels, and this log has none: name the column with the "
            "label role in the schema (data.columns.label of a parquet source), or have "
            "negatives drawn with labels.negatives.per_positive = 4"
        )
    if config.leave_out:
        left_out = events[schema.label].isin(config.leave_out).fill_null(False)
        events = events.filter(~left_out)
    tasks = _labels_of_tasks(engine, events, schema, config)  # from the log's own labels, too
    first = _binary(engine, events, schema.label, config.positive_from, "labels")
    return events.mutate(**tasks, **{schema.label: first})


def _labels_of_tasks(
    engine: Engine, events: ir.Table, schema: Schema, config: LabelConfig
) -> dict[str, ir.Value]:
    """By column."""
    return {
        label_of(name): _label_of_task(engine, events, schema, name, task)
        for name, task in config.tasks.items()
    }


def _label_of_task(
    engine: Engine, events: ir.Table, schema: Schema, name: str, task: TaskConfig
) -> ir.Value:
    where = f"labels.tasks.{name}"
    wanted = (*task.event_types, *task.among)
    if wanted:
        _check_types(engine, events, schema, wanted, where)
    if task.column is None:
        label = events[schema.event_type].isin(task.event_types).cast("float32")
    elif task.column not in events.columns:
        raise DataError(
            f"{where}.column: the events have no column {task.column!r}; they have: "
            f"{', '.join(f.name for f in schema.of_side('context'))}"
        )
    elif not events[task.column].type().is_numeric():
        raise DataError(f"{where}.column: {task.column!r} holds no numbers, and labels are numbers")
    else:
        label = _binary(engine, events, task.column, task.positive_from, where)
    if task.among:
        label = events[schema.event_type].isin(task.among).ifelse(label, None)
    return label


def _check_types(
    engine: Engine, events: ir.Table, schema: Schema, wanted: tuple[str, ...], where: str
) -> None:
    if schema.event_type is None:
        raise DataError(
            f"{where} asks for events of certain types, and this log names no types: give its "
            "schema the event_type role"
        )
    distinct = engine.collect(events.select(schema.event_type).distinct().limit(_DISTINCT))
    known = {value for value in distinct.column(0).to_pylist() if value is not None}
    if len(distinct) < _DISTINCT and (missing := sorted(set(wanted) - known)):
        raise DataError(
            f"{where}: no event is of the type {missing[0]!r}; this log has: "
            f"{', '.join(sorted(known))}"
        )


def _binary(
    engine: Engine, events: ir.Table, column: str, positive_from: float | None, where: str
) -> ir.Value:
    """0, 1 or nothing. Raises DataError where the column holds others and no rule turns them."""
    label = events[column]
    if positive_from is not None:
        return (label >= positive_from).cast("float32")
    other = engine.collect(events.filter(label.notin([0, 1])).limit(1))
    if other.num_rows:
        labels = events.filter(label.notnull()).select(column)
        distinct = engine.collect(labels.distinct().limit(_DISTINCT))
        values = sorted(distinct[column].to_pylist())
        shown = ", ".join(f"{value:g}" for value in values[:_SHOWN])
        raise DataError(
            f"column {column!r} holds {shown}{', ...' if len(values) > _SHOWN else ''}, and "
            f"labels are 0 or 1: set {where}.positive_from to the least value that is a positive, "
            f"such as {where}.positive_from = {values[len(values) * 3 // 5]:g}"
        )
    return label.cast("float32")
