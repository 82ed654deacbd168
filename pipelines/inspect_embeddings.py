"""A trained run -> what its embedding tables look like."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from feature_store.errors import ConfigError
from recsys.config import RunConfig
from recsys.embeddings.inspection import inspect_features, inspect_tables
from recsys.embeddings.tables import Embeddings
from recsys.runs.fit import trained_model


def inspect_embeddings(config: RunConfig) -> dict[str, Any]:
    """Collisions of every vocabulary, and rows of every table of the run's best weights.

    Raises DataError when it was not trained, ConfigError for a model without tables.
    """
    model, _ = trained_model(config)
    embeddings = [module for module in model.modules() if isinstance(module, Embeddings)]
    if not embeddings:
        raise ConfigError(f"{config.model.name} has no embedding tables")
    plain = embeddings[0].plain()
    return {
        "layout": plain.layout.config.layout,
        "bytes": sum(table.bytes for table in plain.layout.tables),
        "features": inspect_features(plain.layout),
        "tables": inspect_tables(plain),
    }


def tables_of(inspected: dict[str, Any]) -> tuple[Table, Table]:
    """What was inspected, as two tables."""
    features = Table(
        title=f"layout {inspected['layout']}, {inspected['bytes'] / 1e6:.3f} MB",
        caption="share of ids that lie alike: all rows are another's of the feature, too; "
        "within: one row is; between: one row is another feature's",
        box=box.SIMPLE,
    )
    features.add_column("feature", overflow="fold")
    for name in ("ids", "width", "probes", "alike", "within", "between"):
        features.add_column(name, justify="right", no_wrap=True)
    for feature in inspected["features"]:
        shares = (feature.alike, feature.within, feature.between)
        features.add_row(
            feature.feature,
            "any" if feature.ids is None else f"{feature.ids:,}",
            str(feature.width),
            str(feature.probes),
            *("" if s is None else f"{s:.2%}" for s in shares),
        )
    tables = Table(
        caption="dead: rows that no id has; norms of the others at the 5th, 50th, 95th percentile",
        box=box.SIMPLE,
    )
    tables.add_column("table", overflow="fold")
    for name in ("rows", "width", "dead", "norm 5 %", "50 %", "95 %"):
        tables.add_column(name, justify="right", no_wrap=True)
    for table in inspected["tables"]:
        norms = (f"{norm:.4f}" for norm in table.norms)
        tables.add_row(
            table.table, f"{table.rows:,}", str(table.width), f"{table.dead:.2%}", *norms
        )
    return features, tables
