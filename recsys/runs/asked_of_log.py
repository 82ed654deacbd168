"""What a config asks of its log: columns that are there, said before anything is made of them."""

from __future__ import annotations

from typing import get_args

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
    check_segments(config.export.fallback, schema)
    if config.ranker is None:  # what rankers predict is not sliced
        check_columns(config.evaluation, schema)
