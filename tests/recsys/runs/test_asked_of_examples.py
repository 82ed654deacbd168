"""Examples that leave nothing to learn or to judge by are refused before a training begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError
from recsys.config import parse_config
from recsys.data.examples import Examples
from recsys.runs.asked_of_examples import check_examples

MIXED = {"u": [1, 1, 2], "label": [0.0, 1.0, 0.0]}


def examples(folder: Path, **rows: dict[str, list[float]]) -> Examples:
    """As far as they are looked at: roles in two files each."""
    for role, columns in rows.items():
        (folder / f"{role}.parquet").mkdir()
        table = pa.table({**columns, "u": pa.array(columns["u"], pa.int64())})
        for number, part in enumerate((table.slice(0, 1), table.slice(1))):
            pq.write_table(part, folder / f"{role}.parquet" / f"{number:05d}.parquet")
    counts = {role: len(columns["u"]) for role, columns in rows.items()}
    summary, schema = SimpleNamespace(rows=counts), SimpleNamespace(user="u")
    return cast(Examples, SimpleNamespace(folder=folder, summary=summary, schema=schema))


def config(**sections: Any) -> Any:
    return parse_config({"name": "x", "data": {"source": "synthetic"}, **sections})


def ranker(metric: str) -> Any:
    return config(ranker={"name": "dcn"}, trainer={"metric": metric})


@pytest.mark.parametrize(
    ("metric", "train", "validation", "message"),
    [
        ("AUC", [1, 1, 1], [0, 1, 0], "every label of the 3 events trained on is 1: .*nothing to"),
        ("LogLoss", [0, 0, 0], [0, 1, 0], "every label of the 3 events trained on is 0"),
        ("AUC", [0, 1, 0], [0, 0, 0], "every label of the 3 validation events is 0.*AUC cannot"),
        ("GAUC", [0, 1, 0], [1, 1, 1], "every label of the 3 validation events is 1.*'LogLoss'"),
        ("GAUC", [0, 1, 0], [1, 1, 0], "no user has both a 0 and a 1 .*GAUC cannot choose"),
        ("NormalisedEntropy", [0, 1, 0], [1, 1, 1], "NormalisedEntropy cannot choose"),
    ],
)
def test_labels_of_one_class(
    tmp_path: Path, metric: str, train: list[float], validation: list[float], message: str
) -> None:
    given = examples(
        tmp_path,
        train={"u": [1, 1, 2], "label": train},
        validation={"u": [1, 1, 2], "label": validation},
    )
    with pytest.raises(DataError, match=message):
        check_examples(ranker(metric), given, 1)


def test_what_can_be_judged_is_trained_on(tmp_path: Path) -> None:
    given = examples(tmp_path, train=MIXED, validation={"u": [1, 1, 2], "label": [1.0, 1.0, 0.0]})
    check_examples(ranker("AUC"), given, 1)
    check_examples(ranker("LogLoss"), given, 3)
    one_class = examples_of_one_class(tmp_path)
    check_examples(ranker("LogLoss"), one_class, 1)


def examples_of_one_class(folder: Path) -> Examples:
    (folder / "one").mkdir()
    return examples(folder / "one", train=MIXED, validation={"u": [1], "label": [1.0]})


def test_fewer_rows_than_processes_are_refused_before_any_work(tmp_path: Path) -> None:
    given = examples(tmp_path, train=MIXED, validation={"u": [1], "label": [1.0]})
    retriever = config(retriever={"name": "sasrec"})
    check_examples(retriever, given, 1)
    with pytest.raises(DataError, match=r"validation has 1 rows, too few for 2 .* at most 1"):
        check_examples(retriever, given, 2)
