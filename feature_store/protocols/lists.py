"""Lists as they were shown, whose events belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


def begin(events: ir.Table, schema: Schema, key: Any) -> Any:
    """The least of a key among the events of each one's list, or its own where it has none."""
    shown_in = events[schema.list]
    return shown_in.isnull().ifelse(key, key.min().over(group_by=shown_in))
