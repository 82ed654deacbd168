"""A bundle in service on the test of a run: the same requests, the same users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import HISTORY
from feature_store.errors import ConfigError
from feature_store.examples import files_of
from feature_store.parquet import read_batches, read_parquet
from feature_store.protocols import TEST
from recsys.config import RunConfig
from recsys.daily.gate import Gate, decide
from recsys.data.examples import Examples
from recsys.export.requests import raw_requests
from recsys.inputs import History, Input
from recsys.runs.folder import RunFolder
from recsys.serving.generator import Generator
from recsys.serving.recommender import Recommender

SERVED = "in_service"
"""What the lists of the bundle in service are called beside a day's model."""
STALE = "stale"
"""What those of the first bundle are called, where it is measured, too."""
_ASKED = 1024  # requests at a time


def served_lists(config: RunConfig, examples: Examples, bundle: Path) -> pd.DataFrame:
    """What a bundle answers to the test requests of a run that have a history: user, item, rank.

    It is asked as from outside, by raw ids: those that it does not know it passes over.
    """
    recommender, schema = Recommender.open(bundle), examples.schema
    finder = recommender.finder
    if not isinstance(finder, Generator):
        raise ConfigError(f"{bundle} answers by a cascade: the gate asks one retriever")
    inputs: dict[str, Input] = {HISTORY: History(schema.item)}
    inputs |= {asked.name: asked for asked in finder.record.inputs}
    users = examples.vocabulary(schema.user)
    wanted = recommender.wanted(
        k=max(config.evaluation.ks), exclude_seen=config.split.seen == "exclude"
    )
    answers = []
    for path in files_of(examples.folder, TEST):
        for batch in read_batches(path, _ASKED):
            rows = pa.Table.from_batches([batch])
            rows = rows.filter(pc.greater(pc.list_value_length(rows[HISTORY]), 0)).combine_chunks()
            if not rows.num_rows:
                continue
            requests = raw_requests(examples, rows, tuple(inputs.values()))
            listed = recommender.answer_wanted(requests, wanted)
            ids = users.decode(rows[schema.user].to_numpy())
            answers.append(recommender.table_of(listed, {"user": ids}))
    return pa.concat_tables(answers).select(["user", "item", "rank"]).to_pandas()


def gate_of(config: RunConfig, name: str) -> Gate:
    """Hold a run's model against the lists `name` that were measured beside it."""
    files = RunFolder(config.folder)
    metric = config.daily.metric or config.metric
    paths = [files.lists_of(each) for each in (config.model.name, name)]
    columns = read_parquet(paths[0]).column_names
    if metric not in columns:
        raise ConfigError(
            f"daily.metric = {metric!r} is no figure of single users; there are: "
            f"{', '.join(column for column in columns if '@' in column)}"
        )
    tables = [read_parquet(path, ["user", metric]).sort_by("user") for path in paths]
    assert tables[0]["user"].equals(tables[1]["user"])
    fresh, served = (table[metric].to_numpy().astype(np.float64) for table in tables)
    return decide(metric, fresh, served, config.daily)
