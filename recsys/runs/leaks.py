"""Whether a model has learned what it is about to be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feature_store.columns import POSITION, ROLE
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.progress import stage
from feature_store.protocols import TEST, GlobalTime
from feature_store.splits import Split, make_split
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.runs.log import open_log

# settings of a protocol that change what is ranked, and no event's role
_NO_ROLES = {f"split.{name}" for name in ("seen", "candidates", "sampled_candidates", "cold_users")}


def check_not_learnt(
    config: RunConfig,
    examples: Examples | Split,
    name: str,
    part: RunConfig,
    learnt: Examples,
) -> None:
    """Raises DataError where a part, of the option `name`, was trained on test events of the run's
    protocol, which its examples have, or the split that they are made of.

    Equal settings of the roles say that it was not. Others are compared event by event; where the
    test begins at a moment, nothing from then on may have been learned.
    """
    here = examples if isinstance(examples, Split) else examples.summary
    if _roles(here.parts) == _roles(learnt.summary.parts):
        return
    with (
        stage(f"look whether {name} has learned what is asked for"),
        Engine(config.engine) as engine,
    ):
        log, _ = open_log(config)
        asked = make_split(engine, log, config.split).events
        asked = asked.filter(asked[ROLE] == TEST)
        labels = part.labels if part.rows_of.labels else None
        events = make_split(engine, log, part.split, labels).events
        events = events.filter(events[ROLE].isin(learnt.summary.train_roles))
        known = events.semi_join(asked, POSITION).count()
        if isinstance(config.split, GlobalTime):
            time = log.schema.time
            known = events.filter(events[time] >= asked[time].min().as_scalar()).count()
        count = engine.collect(known.as_table()).column(0)[0].as_py()
    if count:
        raise DataError(
            f"{name}: {part.folder} was trained on {count:,} events that are the test here "
            f"({learnt.summary.protocol}, and here {here.protocol}): split its run as "
            "this one"
        )


def _roles(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What decides over the role of every event."""
    labels = ("labels.leave_out",)  # others say what a label is, and leave all events in
    return {
        key: value
        for key, value in parts.items()
        if key not in _NO_ROLES and (not key.startswith("labels.") or (key in labels and value))
    }
