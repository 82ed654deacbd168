"""What a run is measured beside when its config names nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recsys.config import parse_config
from recsys.runs import baselines
from recsys.runs.verdict import sentence

Ask = Callable[..., tuple[Any, str, str]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("{user} {item}", ["ease", "popularity", "item_knn"]),
        ("{user} {item} {time}", ["ease", "popularity", "recent_popularity", "item_knn"]),
    ],
)
def test_recent_popularity_is_a_baseline_only_where_there_are_times(
    lines: str, expected: list[str], recsys: Ask, tmp_path: Path
) -> None:
    edges = [
        lines.format(user=user, item=(user + step) % 12, time=86_400 * step)
        for user in range(30)
        for step in range(6)
    ]
    (tmp_path / "edges.txt").write_text("\n".join(edges) + "\n")
    columns = '["user","item","time"]' if "time" in lines else '["user","item"]'
    (tmp_path / "small.toml").write_text(
        f'name = "small"\noutput = "{tmp_path}"\n'
        f'[data]\nsource = "edge_list"\npath = "{tmp_path}/edges.txt"\ncolumns = {columns}\n'
        '[split]\nprotocol = "random"\n[retriever]\nname = "ease"\n'
        "[evaluation]\nks = [1, 3]\nreplicates = 100\n[tracking]\nenabled = false\n"
    )
    for verb in ("ingest", "train", "evaluate"):
        status, told, errors = recsys(verb, tmp_path / "small.toml")
        assert status == 0, errors
    results = json.loads((tmp_path / "small" / "metrics.json").read_text())
    assert list(results["verdict"]["against"]) == expected[1:]
    ceiling, judged = results["ceiling"], results["retrievers"]["ease"]["users"]
    assert ceiling["users"] == ceiling["judged"] == judged < 30
    assert ceiling["targets"]["all"] == results["events"]["test"]
    assert f"{judged} users were judged, of {judged} with test events and 30 in the log" in told
    said = sentence("ease", results["verdict"])
    assert said in told and said in unescape((tmp_path / "small" / "report.html").read_text())
    found = {p.stem for p in (tmp_path / "small" / "per_user").iterdir()}
    assert found == set(expected)


class _Log:
    """What is asked of examples: a clock, and items with training events."""

    schema = SimpleNamespace(clock="time")
    train_events = torch.tensor([0, 3, 1, 0, 2])
    summary = SimpleNamespace(rows={"test": 1_000})


def test_what_may_be_had_again_and_what_fits_in_memory_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree: dict[str, Any] = {
        "name": "small",
        "data": {"source": "synthetic"},
        "retriever": {"name": "sasrec"},
    }
    notes: list[str] = []

    def names(**sections: Any) -> list[str]:
        config = parse_config(tree | sections)
        return [b.name for b in baselines.baselines_of(config, _Log(), notes.append)]  # type: ignore[arg-type]

    again = {"split": {"protocol": "leave_one_out", "seen": "include"}}
    usual = ["popularity", "recent_popularity", "item_knn", "ease"]
    assert names() == usual
    assert names(**again) == [*usual[:2], "personal_popularity", *usual[2:]]
    baskets = {"split": {"protocol": "next_basket", "basket": "day"}}
    assert names(**baskets) == [*usual[:2], "personal_popularity", "tifu_knn", *usual[2:]]
    assert names(baselines=["popularity"]) == ["popularity"] and names(baselines=[]) == []
    assert notes == []
    monkeypatch.setattr(baselines, "_EASE_ITEMS", 2)
    assert names() == usual[:3]
    assert notes == [
        "ease is left out of the baselines: 3 items for 1,000 users are too many to do unasked; "
        "name it in baselines to measure it"
    ]
    monkeypatch.setattr(baselines, "_ITEM_KNN_SCORES", 2_999)
    assert names() == usual[:2]
