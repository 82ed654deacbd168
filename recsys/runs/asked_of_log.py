"""What a config asks of its log: columns that are there, said before anything is made of them."""

from __future__ import annotations

from typing import get_args

from feature_store.errors import ConfigError
from feature_store.examples import check_keyed
from feature_store.schema import Schema, Side
from recsys.config import RunConfig
from recsys.data.item_features import usable_features
from recsys.evaluation.columns import check_columns
from recsys.export.fallback import check_segments


def check_log(config: RunConfig, schema: Schema) -> None:
    """Raises ConfigError, naming the option and what there is, for columns that the log lacks."""
    section = "retriever" if config.ranker is None else "ranker"
    for side in get_args(Side):
        option = f"{side}_features"
        names = getattr(config.model, option, ())
        usable_features(names, schema, side, option=f"{section}.{option}")
    check_keyed(schema, config.embeddings.keyed)
    _check_named(config, schema)
    check_segments(config.export.fallback, schema)
    if config.ranker is None:  # what rankers predict is not sliced
        check_columns(config.evaluation, schema)


def _check_named(config: RunConfig, schema: Schema) -> None:
    """Raises ConfigError where figures or a fallback name the ids of a feature that has none."""
    named = {f"evaluation.slice_columns {name!r}": name for name in config.evaluation.slice_columns}
    named |= {
        f"evaluation.category {name!r}": name for name in [config.evaluation.category] if name
    }
    named |= {f"export.fallback.by {name!r}": name for name in [config.export.fallback.by] if name}
    for option, name in named.items():
        feature = schema.find(name)
        if feature is not None and feature.table_name in config.embeddings.keyed:
            raise ConfigError(
                f"{option} divides by ids that have no vocabulary: leave it out, or set "
                f"embeddings.tables.{feature.table_name}.vocabulary = 'log'"
            )
