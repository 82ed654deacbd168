"""Lists made elsewhere: the figures of the model that made them, and errors that name the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from conformance import fresh, measure, small
from feature_store.errors import DataError
from planted import write_log, write_planted
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.evaluation.given_lists import GivenLists
from recsys.retrievers.fitted import FittedRetriever

ALONE = Group(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("planted")
    return write_planted(write_log(folder / "log"), folder / "examples", "sequences")


@pytest.fixture(scope="module")
def ours(examples: Examples) -> tuple[pd.DataFrame, Any]:
    """A model's own lists as someone else would hand them in, and its figures."""
    model = fresh(small("popularity"), examples)
    assert isinstance(model, FittedRetriever)
    model.fit(examples.interactions(), examples)
    result = measure(model, examples, ALONE)
    table = result.per_user.to_pandas()
    rows = [
        (user, item, rank, score)
        for user, items, scores in zip(
            table["user"], table["recommended"], table["scores"], strict=True
        )
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "rank", "score"])
    schema = examples.schema
    frame["user"] = examples.vocabulary(schema.user).decode(frame["user"].to_numpy()).to_pylist()
    frame["item"] = examples.vocabulary(schema.item).decode(frame["item"].to_numpy()).to_pylist()
    return frame, result


def read(frame: pd.DataFrame, examples: Examples, folder: Path) -> GivenLists:
    frame.to_parquet(folder / "recs.parquet")
    return GivenLists.read(folder / "recs.parquet", examples)


@pytest.mark.parametrize("columns", [["rank"], ["score"], ["rank", "score"]])
def test_a_models_lists_give_the_models_figures(
    columns: list[str], ours: tuple[pd.DataFrame, Any], examples: Examples, tmp_path: Path
) -> None:
    frame, expected = ours
    shuffled = frame.sample(frac=1, random_state=1)[["user", "item", *columns]]
    lists = read(shuffled, examples, tmp_path)
    found = measure(lists, examples, ALONE)
    assert found.metrics == expected.metrics
    for name in ("recommended", "NDCG@10", "user"):
        assert (found.users[name] == expected.users[name]).all()
    assert not lists.notes


def test_columns_may_have_the_logs_own_names_and_other_number_types(
    ours: tuple[pd.DataFrame, Any], examples: Examples, tmp_path: Path
) -> None:
    frame, expected = ours
    renamed = frame.rename(columns={"user": "user_id", "item": "item_id"})
    renamed["user_id"] = renamed["user_id"].astype("int32")
    renamed["rank"] = renamed["rank"].astype("float32")
    found = measure(read(renamed, examples, tmp_path), examples, ALONE)
    assert found.metrics == expected.metrics


def test_what_is_odd_is_counted_and_costs_what_it_should(
    ours: tuple[pd.DataFrame, Any], examples: Examples, tmp_path: Path
) -> None:
    frame, expected = ours
    users = frame["user"].unique()
    gone, seen = users[0], users[1]
    row = examples.vocabulary("user_id").encode(pa.array([seen]))[0]
    events = examples.interactions()
    had = int(events.items[events.users == int(row)][0])
    item = examples.vocabulary("item_id").decode(np.array([had]))[0].as_py()
    odd = pd.DataFrame(
        [
            (99_999, "i01", 1, 0.0),
            (users[2], "no such item", 0, 0.0),
            (users[3], "i41", 0, 0.0),  # in the catalogue, and never sold
            (seen, item, 0, 0.0),
        ],
        columns=frame.columns,
    )
    again = frame[frame["user"] == users[4]].head(3)
    lists = read(pd.concat([odd, frame[frame["user"] != gone], again]), examples, tmp_path)
    found = measure(lists, examples, ALONE)
    assert lists.notes == {
        "rows of users who are not in the log": 1,
        "recommended items that are not in the log": 1,
        "recommended items that are no candidates": 1,
        "recommended items that the user has seen": 1,
        "items that a list repeats": 3,
        "users without a list": 1,
    }
    # all lists close up, and the user without one gets nothing right
    assert (found.users["recommended"][1:] == expected.users["recommended"][1:]).all()
    assert (found.users["recommended"][0] == 0).all() and found.users["NDCG@20"][0] == 0
    assert found.metrics["HR@20"] < expected.metrics["HR@20"] or expected.users["HR@20"][0] == 0


def test_ranks_with_gaps_mean_their_order_and_repeated_ones_are_counted(
    ours: tuple[pd.DataFrame, Any], examples: Examples, tmp_path: Path
) -> None:
    frame, expected = ours
    gaps = frame.assign(rank=frame["rank"] * 10 + 3)
    assert measure(read(gaps, examples, tmp_path), examples, ALONE).metrics == expected.metrics
    lists = read(frame.assign(rank=1), examples, tmp_path)
    assert lists.notes["ranks that a list gives twice"] == len(frame) - frame["user"].nunique()
    lists = read(frame.assign(rank=frame["rank"].clip(lower=2)), examples, tmp_path)
    assert lists.notes["ranks that a list gives twice"] == frame["user"].nunique()
    lists = read(frame.assign(rank=frame["rank"].replace(3, 2)), examples, tmp_path)
    assert lists.notes["ranks that a list gives twice"] == frame["user"].nunique()


def _nan(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.astype({"score": "float64"})
    frame.loc[frame.index[7], "score"] = np.nan
    return frame


WRONG = {
    "no column 'user'": lambda f: f.drop(columns="user"),
    "no column 'item'": lambda f: f.drop(columns="item"),
    "no column 'rank' or 'score'": lambda f: f[["user", "item"]],
    "row 5: item is missing": lambda f: f.assign(item=f["item"].where(np.arange(len(f)) != 5)),
    "row 7: score": _nan,
    "row 3: rank is missing": lambda f: f.assign(
        rank=f["rank"].astype("Int64").where(np.arange(len(f)) != 3)
    ),
    "column 'rank' holds .*string, not numbers": lambda f: f.assign(rank="first"),
    "column 'score' holds integers beyond 2.53": lambda f: f.assign(score=2**53 + 1 + f["rank"]),
    "column 'user' holds": lambda f: f.assign(user="u" + f["user"].astype(str)),
    "holds no lists": lambda f: f.iloc[:0],
    "none of its users is in the log": lambda f: f.assign(user=f["user"] + 10**6),
    "none of the items": lambda f: f.assign(item="x" + f["item"]),
    "items that users of the log are given": lambda f: f.assign(  # known ones go to strangers
        user=np.where(np.arange(len(f)) % 2, f["user"] + 10**6, f["user"]),
        item=np.where(np.arange(len(f)) % 2, f["item"], "x"),
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_file_that_holds_no_lists_is_refused_by_name(
    message: str, ours: tuple[pd.DataFrame, Any], examples: Examples, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(WRONG[message](ours[0]), examples, tmp_path)
    assert "recs.parquet" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["recs.csv", "recs.tsv", "recs.csv.gz"])
def test_lists_may_be_text(
    name: str, ours: tuple[pd.DataFrame, Any], examples: Examples, tmp_path: Path
) -> None:
    frame, expected = ours
    frame.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",")
    found = measure(GivenLists.read(tmp_path / name, examples), examples, ALONE)
    assert found.metrics == expected.metrics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,rank\n1,1,1\n1,2\n", "recs.csv:3: 2 columns instead of 3"),
        ("user,item,rank\n1,1,1\n1, ,2\n", "row 1: item is missing"),
        ("user,item,rank\nUSER,1,first\n", "column 'rank' holds"),
        ("", "recs.csv: the file is empty"),
    ],
)
def test_text_that_holds_no_lists_is_refused_by_line(
    text: str, message: str, examples: Examples, tmp_path: Path
) -> None:
    (known,) = examples.vocabulary(examples.schema.user).decode(np.array([1])).to_pylist()
    (tmp_path / "recs.csv").write_text(text.replace("USER", str(known)))
    with pytest.raises(DataError, match=message):
        GivenLists.read(tmp_path / "recs.csv", examples)


def test_what_is_no_parquet_is_refused(examples: Examples, tmp_path: Path) -> None:
    (tmp_path / "recs.parquet").write_text("user,item,rank")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        GivenLists.read(tmp_path / "recs.parquet", examples)
    with pytest.raises(DataError, match=r"absent\.parquet does not exist"):
        GivenLists.read(tmp_path / "absent.parquet", examples)
