"""Figures of lists made elsewhere, from the command line: the model's own when the lists are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import recsys as recsys_api
from recsys.config import parse_config
from recsys.runs.figures import given_lists
from recsys.runs.folder import RunFolder

TreeOf = Callable[..., dict[str, Any]]
Ask = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def evaluated(tree_of: TreeOf, recsys: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, ingested and evaluated with closed-form retrievers alone; returns its TOML."""
    folder = tmp_path_factory.mktemp("evaluated")
    tree = tree_of(folder, retriever={"name": "popularity"}, baselines=["item_knn"])
    path = folder / "small.toml"
    path.write_text(parse_config(tree).to_toml())
    for verb in ("ingest", "train", "evaluate"):
        assert recsys(verb, path)[0] == 0
    return path


def results(config: Path) -> dict[str, Any]:
    return json.loads((config.parent / "small" / "metrics.json").read_text())


def long(config: Path, retriever: str) -> pd.DataFrame:
    """A retriever's lists as another system would hand them in."""
    users = pd.read_parquet(config.parent / "small" / "per_user" / f"{retriever}.parquet")
    lists = users[["user", "recommended"]].explode("recommended")
    lists = lists.rename(columns={"recommended": "item"})
    return lists.assign(rank=lists.groupby("user").cumcount() + 1)


def test_anyones_lists_are_measured_as_our_own(evaluated: Path, recsys: Ask) -> None:
    recs = evaluated.parent / "theirs.parquet"
    long(evaluated, "item_knn").sample(frac=1, random_state=0).to_parquet(recs)
    before = results(evaluated)
    assert recsys("evaluate", evaluated, "--recommendations", recs)[0] == 0
    found = results(evaluated)["retrievers"]
    assert found["theirs"]["metrics"] == found["item_knn"]["metrics"]
    assert found["theirs"]["ci95"] == found["item_knn"]["ci95"]
    assert found["theirs"]["slices"] == found["item_knn"]["slices"]
    assert {name: found[name] for name in before["retrievers"]} == before["retrievers"]
    assert 'data-retriever="theirs"' in (evaluated.parent / "small" / "report.html").read_text()
    run = evaluated.parent / "small"
    assert recsys("compare", f"{run}:item_knn", f"{run}:theirs")[0] == 0


def test_no_model_is_needed(evaluated: Path, recsys: Ask) -> None:
    recs = evaluated.parent / "alone.parquet"
    long(evaluated, "popularity").to_parquet(recs)
    words = ("evaluate", evaluated, "name=other", f"store={_store(evaluated)}")
    assert recsys(*words, "--recommendations", recs, "--name", "production")[0] == 0
    found = json.loads((evaluated.parent / "other" / "metrics.json").read_text())
    assert (
        found["retrievers"]["production"]["metrics"]
        == (results(evaluated)["retrievers"]["popularity"]["metrics"])
    )


def test_lists_may_be_a_frame(evaluated: Path) -> None:
    frame = long(evaluated, "item_knn")
    run = recsys_api.evaluate(
        evaluated, frame, "name=frame", f"store={_store(evaluated)}", name="a"
    )
    expected = results(evaluated)["retrievers"]["item_knn"]["metrics"]["NDCG@10"]
    assert run.metrics.loc["a", "NDCG@10"] == expected


def _store(config: Path) -> Path:
    (found,) = (config.parent / "store").iterdir()
    return found


def test_what_was_measured_is_never_overwritten_or_mixed(evaluated: Path, recsys: Ask) -> None:
    recs = evaluated.parent / "item_knn.parquet"
    long(evaluated, "item_knn").to_parquet(recs)
    message, _, _ = recsys("evaluate", evaluated, "--recommendations", recs)
    assert "has a retriever 'item_knn'" in str(message) and "--name" in str(message)
    message, _, _ = recsys(
        "evaluate", evaluated, "split.seen=include", "--recommendations", recs, "--name", "x"
    )
    assert "another protocol" in str(message)
    assert "split.seen" not in (results(evaluated)["retrievers"])


def test_predicted_probabilities_become_expected_revenue(evaluated: Path, recsys: Ask) -> None:
    recs = evaluated.parent / "sure.parquet"
    lists = long(evaluated, "popularity")
    lists.assign(probability=0.5).to_parquet(recs)
    assert recsys("evaluate", evaluated, "--recommendations", recs)[0] == 0
    users = pd.read_parquet(evaluated.parent / "small" / "per_user" / "sure.parquet")
    items = pd.read_parquet(evaluated.parent / "small" / "examples" / "items.parquet")
    assert "last_price" in items
    figure = results(evaluated)["retrievers"]["sure"]["metrics"]["ExpectedRevenue@10"]
    assert figure == pytest.approx(users["ExpectedRevenue@10"].mean())
    assert 0 < figure < 5 * items["last_price"].max()
    lists.assign(probability=1.5).to_parquet(recs)
    message, _, _ = recsys("evaluate", evaluated, "--recommendations", recs, "--name", "mad")
    assert "probab" in str(message) and "\n" not in str(message)


def test_lists_stay_when_the_run_is_measured_again(evaluated: Path, recsys: Ask) -> None:
    """Also those that are called as a baseline that comes later; not under another protocol."""
    recs = evaluated.parent / "again.parquet"
    long(evaluated, "popularity").to_parquet(recs)
    words = ("evaluate", evaluated, "--recommendations", recs)
    assert recsys(*words, "--name", "ease")[0] == 0
    before = results(evaluated)["retrievers"]
    assert recsys("evaluate", evaluated, 'baselines=["ease"]')[0] == 0
    found = results(evaluated)["retrievers"]
    assert list(found)[:2] == ["popularity", "ease_2"] and found["ease"] == before["ease"]
    lists = pd.read_parquet(evaluated.parent / "small" / "per_user" / "ease.parquet")
    assert lists["NDCG@10"].mean() == pytest.approx(found["ease"]["metrics"]["NDCG@10"])
    assert found["ease"]["metrics"] != found["ease_2"]["metrics"]
    message, _, _ = recsys(*words, "--name", "popularity")
    assert "has a retriever 'popularity'" in str(message)
    notes: list[str] = []
    files, held = RunFolder(evaluated.parent / "small"), results(evaluated)
    assert "ease" in given_lists(files, held, notes.append) and notes == []
    assert given_lists(files, held | {"protocol_fingerprint": "0"}, notes.append) == {}
    assert any(note.startswith("ease: these lists were measured under another") for note in notes)


def test_a_name_stays_in_the_folder_of_its_run(evaluated: Path, recsys: Ask) -> None:
    """Where it replaced whatever lay elsewhere."""
    recs, elsewhere = evaluated.parent / "recs.parquet", evaluated.parent / "z.parquet"
    long(evaluated, "popularity").to_parquet(recs)
    elsewhere.write_text("mine")
    words = ("evaluate", evaluated, "--recommendations", recs, "--name")
    assert recsys(*words, "../../z")[0] == 0
    assert elsewhere.read_text() == "mine"
    assert "../../z" in results(evaluated)["retrievers"]
    assert (evaluated.parent / "small" / "per_user" / "%2E.%2F..%2Fz.parquet").exists()
    assert "has more than 60 signs: choose a --name" in str(recsys(*words, "x" * 61)[0])
