"""What two bundles differ in is told, counted by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from served import ITEMS, Served, forge, rewrite

from feature_store.durable import write_parquet
from feature_store.parquet import read_parquet
from pipelines.cli.differing import diff
from recsys.serving.bundle import Bundle
from recsys.serving.difference import differences


@pytest.fixture
def told(sasrec: Served, tmp_path: Path) -> Callable[..., dict[tuple[str, str], tuple[Any, ...]]]:
    def told(change: Callable[[Path], object]) -> dict[tuple[str, str], tuple[Any, ...]]:
        new = Path(shutil.copytree(sasrec.bundle, tmp_path / "new"))
        change(new)
        rows = differences(Bundle.open(sasrec.bundle), Bundle.open(new))
        return {(row.part, row.what): tuple(row[2:]) for row in rows}

    return told


def test_the_same_bundle_answers_the_same(told: Any, sasrec: Served) -> None:
    count = sasrec.recommender.finder.golden().num_rows
    assert told(lambda new: None) == {
        ("generator", "golden lists shared@10"): (1.0, 1.0, f"of the items of {count} requests")
    }


def test_everything_is_counted(told: Any, sasrec: Served, capsys: Any, tmp_path: Path) -> None:
    def change(new: Path) -> None:
        vectors = np.load(new / ITEMS)
        vectors[[1, 5, 6]] += 1
        np.save(new / ITEMS, vectors)
        forge(new, ITEMS)
        table = read_parquet(new / "catalogue.parquet")
        column = table.column_names.index("title")
        titles = table.column("title").to_pylist()
        titles[4] = "another one"
        table = table.set_column(column, "title", pa.array(titles)).slice(1)
        write_parquet(table, new / "catalogue.parquet")
        forge(new, "catalogue.parquet")

        def say(tree: Any) -> None:
            part = tree["parts"]["generator"]
            part["space"], part["about"]["run"] = "other", "later"
            part["about"]["metrics"] = {"NDCG@10": 0.25}
            tree["parts"]["more"] = part
            tree["versions"]["recsys"] = "9"

        rewrite(new, say)
        for path in (new / "parts" / "generator").iterdir():
            (new / "parts" / "more").mkdir(exist_ok=True)
            shutil.copy(path, new / "parts" / "more")
            forge(new, f"parts/more/{path.name}")

    rows = told(change)
    count = sasrec.recommender.generator.record.candidates
    items = read_parquet(sasrec.bundle / "catalogue.parquet").num_rows
    space = sasrec.recommender.generator.record.space
    assert 0 < rows.pop(("generator", "golden lists shared@10"))[1] < 1
    assert rows == {
        ("", "version of recsys"): (
            Bundle.open(sasrec.bundle).manifest.versions["recsys"],
            "9",
            "",
        ),
        ("", "catalogue"): (items, items - 1, "0 new, 1 gone, 1 altered"),
        ("generator", "run"): (sasrec.recommender.generator.record.about.run, "later", ""),
        ("generator", "space"): (space, "other", ""),
        ("generator", "items"): (count, count, "0 new, 0 gone, 3 other vectors"),
        ("generator", "NDCG@10"): (None, 0.25, ""),
        ("more", "part"): (None, "generator", ""),
    }
    diff(sasrec.bundle, tmp_path / "new", as_json=True)
    tree = json.loads(capsys.readouterr().out)
    assert tree["generator"]["NDCG@10"] == {"old": None, "new": 0.25, "how": ""}
    assert tree["bundle"]["catalogue"]["how"] == "0 new, 1 gone, 1 altered"
    diff(sasrec.bundle, tmp_path / "new", form="csv")
    assert "generator,NDCG@10,,0.2500,\n" in capsys.readouterr().out


def test_a_bundle_that_cannot_answer_the_other_ones_requests_says_so(told: Any) -> None:
    def change(new: Path) -> None:
        (new / "catalogue.parquet").unlink()
        rewrite(new, lambda tree: tree["files"].pop("catalogue.parquet"))
        np.save(new / ITEMS, np.load(new / ITEMS)[:, :3])
        forge(new, ITEMS)

    rows = told(change)
    assert rows["", "catalogue"] == ("a table of catalogue", None, "")
    _, share, how = rows["generator", "golden lists shared@10"]
    assert share is None and how.startswith("not answered: ") and "the manifest says" in how
