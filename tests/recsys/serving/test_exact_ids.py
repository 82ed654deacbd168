"""Ids keep every digit on their way into a bundle and out of it, from Python and the shell."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conformance import fresh, learn, small
from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from pipelines import cli
from planted import write_planted
from recsys.distributed import join
from recsys.evaluation.given_lists import GivenLists
from recsys.export.bundle import write_bundle
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer

EDGE = 2**53  # beyond it doubles are even numbers alone
USERS = [EDGE + 2 * n + 1 for n in range(12)]
ITEMS = [EDGE + 2 * n + 1 for n in range(9)]
BETWEEN = EDGE + 2  # what a double would make of a user or an item; nobody has that id
SCHEMA = Schema(
    user="user_id",
    item="item_id",
    label="liked",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="item_id", kind="id", side="item", dtype="int64"),
        Feature(name="liked", kind="dense", side="context", dtype="float32"),
    ),
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """Everyone steps through the items from a place of their own."""
    log = EventLog.create(tmp_path_factory.mktemp("exact") / "log", SCHEMA)
    day = datetime(2024, 1, 1)
    rows = [
        (user, ITEMS[(start + step) % 9], day + timedelta(days=step), float(4 + step % 2))
        for start, user in enumerate(USERS)
        for step in range(5)
    ]
    columns = zip(*rows, strict=True)
    log.append(pa.table(dict(zip(SCHEMA.events_schema().names, columns, strict=True))))
    return log


@pytest.fixture(scope="module")
def bundle(log: EventLog) -> Path:
    """A generator that follows histories, and a ranker that tells users apart."""
    folder, about = log.folder.parent, About(run="exact", model="exact")
    sequences = write_planted(log, folder / "sequences", "sequences")
    labelled = write_planted(log, folder / "labelled", "labelled")
    with join("cpu") as group:
        model = learn(small("ease"), sequences, folder, group)
    parts = {
        "generator": GeneratorExport(
            model, sequences, sequences.candidates(), index=ExactConfig(), golden=2, about=about
        ),
        "ranker": RankerExport(fresh(small("dcn"), labelled), labelled, golden=2, about=about),
    }
    write_bundle(folder / "bundle", parts, Catalogue(log.folder, SCHEMA))  # type: ignore[arg-type]
    return folder / "bundle"


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.open(bundle)


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer.open(bundle)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["recsys", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code, left.value.code


def test_scores_are_those_of_the_users_that_were_asked_for(
    bundle: Path, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One missing id among them turned them all into doubles."""
    asked = pa.array([*USERS[:4], None])
    requests = pa.table({"user_id": asked, "item_id": [ITEMS[3]] * 5})
    pq.write_table(requests, tmp_path / "requests.parquet")
    run(
        monkeypatch,
        *("score", bundle, "--requests", tmp_path / "requests.parquet"),
        *("--out", tmp_path / "scored.parquet"),
    )
    scored = pq.read_table(tmp_path / "scored.parquet")
    assert (
        scored["user_id"].type == pa.int64() and scored["user_id"].to_pylist() == asked.to_pylist()
    )
    alone = [
        scorer.score_table(pa.table({"user_id": [user], "item_id": [ITEMS[3]]}))["probability"]
        for user in USERS[:4]
    ]
    assert scored["probability"].to_pylist()[:4] == pytest.approx([one[0].as_py() for one in alone])
    assert len(set(scored["probability"].to_pylist())) == 5  # they are told apart
    nobody = scorer.score_table(pa.table({"user_id": [BETWEEN], "item_id": [ITEMS[3]]}))
    assert nobody["probability"][0].as_py() == pytest.approx(scored["probability"][4].as_py())


def test_a_frame_comes_back_as_it_was_and_a_table_exact(scorer: Scorer) -> None:
    ids = pd.array([USERS[0], None], dtype="Int64")
    frame = pd.DataFrame({"user_id": ids, "item_id": ITEMS[:2]}, index=["a", "b"])
    scored = scorer.score(frame)
    pd.testing.assert_frame_equal(scored.drop(columns="probability"), frame)
    table = scorer.score(pa.table({"user_id": pa.array([USERS[0], None]), "item_id": ITEMS[:2]}))
    assert table["user_id"].tolist() == [USERS[0], pd.NA]


def test_items_and_users_of_an_answer_keep_every_digit(
    bundle: Path, recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(
        monkeypatch,
        *("recommend", bundle, "-u", USERS[0], "-u", USERS[1], "-k", 2),
        *("--out", tmp_path / "lists.parquet"),
    )
    lists = pq.read_table(tmp_path / "lists.parquet")
    assert lists["user"].to_pylist() == [USERS[0]] * 2 + [USERS[1]] * 2
    assert lists["user"].type == lists["item"].type == pa.int64()
    assert set(lists["item"].to_pylist()) <= set(ITEMS)
    frame = recommender.recommend([USERS[0], USERS[1]], k=2)
    assert frame["item"].tolist() == lists["item"].to_pylist()
    assert frame["user"].dtype == frame["item"].dtype == np.int64


def test_a_missing_item_in_one_history_leaves_the_others_exact(
    bundle: Path, recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = pa.array([[ITEMS[0], None, ITEMS[1]], ITEMS[4:6]])
    requests = pa.table({"user": pa.array([None, USERS[2]]), "history": histories})
    pq.write_table(requests, tmp_path / "requests.parquet")
    run(
        monkeypatch,
        *("recommend", bundle, "--requests", tmp_path / "requests.parquet"),
        *("--out", tmp_path / "lists.parquet"),
    )
    lists = pq.read_table(tmp_path / "lists.parquet")
    assert set(lists["user"].to_pylist()) == {None, USERS[2]}
    for user, history in ((None, ITEMS[:2]), (USERS[2], ITEMS[4:6])):
        alone = recommender.recommend_table(pa.table({"history": [history]}))
        same = [row for row in lists.to_pylist() if row["user"] == user]
        assert [row["item"] for row in same] == alone["item"].to_pylist()
        assert not {row["item"] for row in same} & set(history)  # each digit was understood


@pytest.mark.parametrize(
    "as_type",
    [
        lambda ids: pa.array([Decimal(i) for i in ids], pa.decimal128(38, 0)),
        lambda ids: pa.array(ids, pa.uint64()),
        lambda ids: pa.array([str(i) for i in ids], pa.large_string()),
        lambda ids: pa.array([f" {i} " for i in ids]).dictionary_encode(),
    ],
    ids=["decimal", "uint64", "text", "dictionary"],
)
def test_ids_may_come_in_any_type(recommender: Recommender, scorer: Scorer, as_type: Any) -> None:
    expected = recommender.recommend([USERS[5]], k=3)
    assert recommender.recommend(as_type([USERS[5]]), k=3).equals(expected)
    history = ITEMS[2:4]
    values = as_type(history)
    lists = pa.ListArray.from_arrays([0, 2], values)
    answers = recommender.recommend(requests=pa.table({"history": lists}), k=3)
    assert answers.equals(recommender.recommend(requests=pa.table({"history": [history]}), k=3))
    pair = {"user_id": as_type([USERS[5]]), "item_id": as_type([ITEMS[0]])}
    plain = {"user_id": [USERS[5]], "item_id": [ITEMS[0]]}
    scores = [scorer.score_table(pa.table(row))["probability"] for row in (pair, plain)]
    assert scores[0].to_pylist() == scores[1].to_pylist()


@pytest.mark.parametrize("asked", [float(EDGE + 2), [float(EDGE + 2), 3.0]])
def test_ids_that_have_lost_digits_are_refused(recommender: Recommender, asked: Any) -> None:
    with pytest.raises(DataError, match="too large to be exact in its type"):
        recommender.recommend(asked)
    history = np.atleast_1d(np.array(asked))
    with pytest.raises(DataError, match=r"column 'history' .* too large to be exact"):
        recommender.recommend(requests=pd.DataFrame({"history": [history]}))


def test_ids_beyond_64_bits_are_unknown(recommender: Recommender) -> None:
    with pytest.raises(DataError, match=f"unknown users: {2**63 + 1}, {2**70};"):
        recommender.recommend([2**63 + 1, 2**70], strict=True)
    labelled = recommender.recommend([2**63 + 1, USERS[0]], k=1)
    assert labelled["user"].astype(str).tolist() == [str(2**63 + 1), str(USERS[0])]
    alone = recommender.recommend(requests=pd.DataFrame({"history": [ITEMS[:1]]}))
    beside = recommender.recommend(requests=pd.DataFrame({"history": [[2**64 + 1, ITEMS[0]]]}))
    assert beside.equals(alone)


@pytest.mark.parametrize(
    "one", [str(USERS[3]), USERS[3], np.int64(USERS[3])], ids=["text", "int", "numpy"]
)
def test_one_user_may_be_asked_for(recommender: Recommender, one: Any) -> None:
    """The digits of a text are not the users."""
    answers = recommender.recommend(one, k=2)
    assert answers["user"].tolist() == [USERS[3]] * 2
    series = pd.Series([USERS[3]], index=[7])
    for many in (series, np.array([USERS[3]]), (user for user in [USERS[3]])):
        assert recommender.recommend(many, k=2).equals(answers)


def test_answers_bear_the_users_ids_or_none(recommender: Recommender, scorer: Scorer) -> None:
    histories = {"history": [ITEMS[:1], ITEMS[1:2]]}
    for name in ("user", "user_id"):
        frame = pd.DataFrame({name: [USERS[0], 5], **histories})
        assert recommender.recommend(requests=frame, k=1)["user"].tolist() == [USERS[0], 5]
    unnamed = recommender.recommend(requests=pd.DataFrame(histories), k=1)
    assert unnamed.columns.tolist()[:2] == ["request", "rank"]  # no 0 and 1 that may be users
    pair = {"user": [USERS[0]], "item": [ITEMS[0]]}
    own = scorer.score_table(pa.table({"user_id": [USERS[0]], "item_id": [ITEMS[0]]}))
    assert scorer.score_table(pa.table(pair))["probability"].equals(own["probability"])


def test_lists_made_elsewhere_are_of_the_very_items(log: EventLog, tmp_path: Path) -> None:
    examples = write_planted(log, tmp_path / "examples", "sequences")
    rows = {"user": USERS[:2], "item": [ITEMS[0], BETWEEN], "rank": [1, 1]}
    read = GivenLists.read(pd.DataFrame(rows), examples)
    assert read.notes == {"recommended items that are not in the log": 1}
    pq.write_table(pa.table({**rows, "item": pa.array(rows["item"], pa.uint64())}), tmp_path / "r")
    assert GivenLists.read(tmp_path / "r", examples).notes == read.notes
    doubled = pd.DataFrame(rows).astype({"item": float})
    with pytest.raises(DataError, match=r"column 'item' holds double.* too large to be exact"):
        GivenLists.read(doubled, examples)
