"""What a store of users keeps, so that it answers as a run's examples do."""

from __future__ import annotations

from feature_store.errors import ConfigError
from feature_store.schema import Schema
from recsys.config import RunConfig
from recsys.online.rules import KEEP, Rules, make_rules
from recsys.runs.parts import rows_of


def rules_of(
    config: RunConfig, schema: Schema, keep: int | None = None, days: float | None = None
) -> Rules:
    """The rules of a run's lists and events: of a cascade, those of all that its parts read.

    Raises ConfigError where less is kept of a user than the model reads, and DataError for a log
    that no store can be made of.
    """
    read = getattr(config.model, "max_length", 1)
    if (keep or KEEP) < read:
        raise ConfigError(f"--keep {keep} is less than {config.name} reads: at least {read}")
    rows = rows_of(config)
    labels = config.labels if rows.labels else None
    return make_rules(
        log=schema,
        histories=rows.requested,
        positives=rows.positives,
        positive_from=None if labels is None else labels.positive_from,
        leave_out=() if labels is None else labels.leave_out,
        event_types=config.split.event_types,
        min_label=config.split.min_label,
        keep=keep or KEEP,
        days=days,
    )
