"""`recsys compare` on evaluated runs: its table, its JSON, its report, its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluate import evaluate
from pipelines.ingest import ingest_source
from recsys.config import RunConfig

Ask = Callable[..., tuple[Any, str]]


@pytest.fixture
def ask(recsys: Callable[..., tuple[Any, str, str]]) -> Ask:
    """Runs `recsys compare` in this process: (exit status or message, stdout)."""
    return lambda *words: recsys("compare", *words)[:2]


@pytest.fixture(scope="module")
def runs(
    tree_of: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs of popularity that need no training: two of one protocol, one of another."""
    folder = tmp_path_factory.mktemp("compare")
    tree = tree_of(
        folder / "runs",
        store=str(folder / "store"),
        evaluation={"ks": [1, 10, 20], "replicates": 100},
    )
    recent, seen = {"name": "recent_popularity"}, tree["split"] | {"seen": "include"}
    for name, sections in {
        "one": {"retriever": {"name": "popularity"}, "baselines": [recent]},
        "recent": {"retriever": recent, "baselines": []},
        "seen": {"retriever": recent, "baselines": [], "split": seen},
    }.items():
        config = RunConfig.model_validate(tree | {"name": name} | sections)
        ingest_source(config.data, config.store_folder)
        evaluate(config)
    return {name: folder / "runs" / name for name in ("one", "recent", "seen")}


def test_the_json_holds_the_figures_of_the_runs(ask: Ask, runs: dict[str, Path]) -> None:
    status, out = ask(
        runs["one"], runs["recent"], "--json", "--metric", "NDCG", "-m", "Coverage@10"
    )
    found = json.loads(out)
    results = json.loads((runs["recent"] / "metrics.json").read_text())
    assert status == 0
    for name in ("protocol", "protocol_fingerprint", "candidates"):
        assert found[name] == results[name]
    theirs = results["retrievers"]["recent_popularity"]
    rows = {row["metric"]: row for row in found["figures"] if row["run"] == "recent"}
    assert set(rows) == {"NDCG@1", "NDCG@10", "NDCG@20", "Coverage@10"}
    for metric, row in rows.items():
        assert row["value"] == theirs["metrics"][metric]
        assert [row["low"], row["high"]] == theirs["ci95"][metric]
        assert (row["p"] is None) == (metric == "Coverage@10")


def test_a_baseline_is_the_same_in_both_runs(ask: Ask, runs: dict[str, Path]) -> None:
    """The second run is recent popularity, which the first has as a baseline."""
    baseline = f"{runs['one']}:recent_popularity"
    status, out = ask(baseline, runs["recent"], "--json", "--test", "bootstrap")
    assert status == 0 and json.loads(out)["test"] == "bootstrap"
    rows = [row for row in json.loads(out)["figures"] if row["run"] == "recent"]
    assert {row["difference"] for row in rows} == {0}
    assert {row["p"] for row in rows} == {1, None}


def test_the_table_is_titled_with_the_protocol(ask: Ask, runs: dict[str, Path]) -> None:
    results = json.loads((runs["one"] / "metrics.json").read_text())
    status, out = ask(runs["one"], runs["recent"])
    words = out.split()
    assert status == 0
    assert results["protocol"] in out and f"({results['protocol_fingerprint']})" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    for run, name in (("one", "popularity"), ("recent", "recent_popularity")):
        figures = json.loads((runs[run] / "metrics.json").read_text())["retrievers"][name]
        for metric in ("NDCG@10", "GMVCapture@10"):
            assert metric in words
            assert f"{figures['metrics'][metric]:.4f}" in words
            assert f"[{figures['ci95'][metric][0]:.4f}," in words
    coverage = next(line for line in out.split("Coverage@10")[1].splitlines() if "recent" in line)
    assert coverage.split()[-2:] == ["—", "—"]  # no p-value, and none corrected


def test_the_report_is_written_beside_the_table(
    ask: Ask, runs: dict[str, Path], tmp_path: Path
) -> None:
    status, out = ask(runs["one"], runs["recent"], "--out", tmp_path / "both.html")
    results = json.loads((runs["one"] / "metrics.json").read_text())
    page = (tmp_path / "both.html").read_text()
    assert status == 0 and "both.html" in out
    assert all(word in page for word in ("recent", results["protocol_fingerprint"], "NDCG@10"))


def test_mistakes_are_one_line_and_a_status(ask: Ask, runs: dict[str, Path]) -> None:
    for words, fragment in [
        ([runs["one"], runs["seen"]], 'split.seen is "exclude" in one but "include" in seen'),
        ([runs["one"]], "two runs or more"),
        ([runs["one"], f"{runs['recent']}:ease"], "recent has no retriever 'ease'"),
        ([runs["one"], runs["recent"], "-m", "Luck@10"], "no metric 'Luck@10'"),
    ]:
        message, out = ask(*words)
        assert message.startswith("recsys: ") and fragment in message and "\n" not in message
        assert out == ""
    assert ask(runs["one"], runs["recent"], "--test", "guess")[0] == 2
