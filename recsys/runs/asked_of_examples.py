"""What a training asks of its examples, said before it begins."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import LABEL
from feature_store.errors import DataError
from feature_store.examples import files_of
from feature_store.parquet import read_parquet
from feature_store.protocols import TEST, TRAIN, VALIDATION
from recsys.config import RunConfig
from recsys.data.examples import Examples

_OF_BOTH_CLASSES = ("AUC", "GAUC", "NormalisedEntropy")


def check_examples(config: RunConfig, examples: Examples, processes: int) -> None:
    """Raises DataError for examples that cannot be split over the processes, and for labels that
    leave nothing to learn, or nothing to choose an epoch by."""
    for role in (TRAIN, VALIDATION, TEST):
        rows = examples.summary.rows.get(role)
        if rows is not None and rows < processes:
            raise DataError(
                f"{role} has {rows:,} rows, too few for {processes} processes: start at most "
                f"{max(rows, 1)}"
            )
    if config.ranker is None:
        return
    labels = _labels(examples, TRAIN)[LABEL]
    if pc.count_distinct(labels).as_py() < 2:
        raise DataError(
            f"every label of the {len(labels):,} events trained on is {_only(labels)}: there is "
            "nothing to tell apart; see [labels] and [split]"
        )
    if config.metric in _OF_BOTH_CLASSES and VALIDATION in examples.summary.rows:
        _check_judged(config.metric, _labels(examples, VALIDATION, examples.schema.user))


def _check_judged(metric: str, rows: pa.Table) -> None:
    labels = rows[LABEL]
    way_out = f"{metric} cannot choose an epoch: set trainer.metric = 'LogLoss', or split otherwise"
    if pc.count_distinct(labels).as_py() < 2:
        raise DataError(
            f"every label of the {len(labels):,} validation events is {_only(labels)}, so that "
            f"{way_out}"
        )
    if metric == "GAUC":
        user = next(name for name in rows.column_names if name != LABEL)
        of_user = rows.group_by(user).aggregate([(LABEL, "min"), (LABEL, "max")])
        if not pc.any(pc.not_equal(of_user[f"{LABEL}_min"], of_user[f"{LABEL}_max"])).as_py():
            raise DataError(
                "no user has both a 0 and a 1 among the labels of its validation events, so that "
                f"{way_out}"
            )


def _labels(examples: Examples, role: str, *more: str) -> pa.Table:
    columns = [*more, LABEL]
    files = files_of(examples.folder, role)
    return pa.concat_tables(read_parquet(f, columns) for f in files)


def _only(labels: pa.ChunkedArray) -> str:
    return f"{labels[0].as_py():g}" if len(labels) else "missing"
