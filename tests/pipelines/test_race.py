"""`recsys tune` with retrievers: which of them suits a log, within a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w

from recsys.config import load_config
from recsys.runs.race import halve

Ask = Callable[..., tuple[Any, str, str]]
START = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of users who buy the six things of their group, a pair that goes together last:
    popularity cannot tell the groups apart."""
    folder = tmp_path_factory.mktemp("race")
    events = [
        (user, f"{'ab'[user % 2]}{(user // 2 + step) % 6}", START + timedelta(days=step))
        for user in range(60)
        for step in range(5)
    ]
    path = folder / "events.parquet"
    pd.DataFrame(events, columns=["user", "item", "time"]).to_parquet(path)
    tree = {
        "name": "small",
        "output": str(folder / "runs"),
        "data": {
            "source": "parquet",
            "path": str(path),
            "columns": {"user": "user", "item": "item", "time": "time"},
        },
        "retriever": {"name": "sasrec", "width": 8, "blocks": 1, "max_length": 5},
        "trainer": {"epochs": 3, "metric": "Recall@3", "device": "cpu"},
        "evaluation": {"ks": [1, 3]},
        "tracking": {"enabled": False},
        "tune": {
            "retrievers": [
                "popularity",
                "item_knn",
                {"name": "ease", "l2": 5.0},
                {"name": "ease", "max_items": 1},
                "sasrec",
            ],
            "timeout": 0.001,
        },
    }
    (folder / "small.toml").write_text(tomli_w.dumps(tree))
    return folder / "small.toml"


def test_one_command_says_which_model_suits_the_log(recsys: Ask, file: Path) -> None:
    status, out, errors = recsys("tune", file)
    assert status == 0, errors
    folder = file.parent / "runs" / "small"
    record = json.loads((folder / "race.json").read_text())
    entries = {entry["name"]: entry for entry in record["entries"]}
    assert set(entries) == {"popularity", "item_knn", "ease", "ease_2", "sasrec"}
    assert record["best"] == record["entries"][0]["name"] in ("item_knn", "ease")
    assert entries["popularity"]["value"] < 0.7 < entries["ease"]["value"]
    assert entries["popularity"]["p_holm"] < 0.01 and entries[record["best"]]["p_holm"] is None
    # the config's own retriever has its own options, and an epoch whatever the budget
    assert entries["sasrec"]["config"]["width"] == 8 and entries["sasrec"]["epochs"] >= 1
    assert "max_items = 1" in entries["ease_2"]["reason"] and entries["ease_2"]["value"] is None
    assert record["entries"][-1]["name"] == "ease_2"
    chosen = load_config(folder / "chosen.toml")
    assert chosen.name == f"small_{chosen.model.name}" and not chosen.tune.retrievers
    assert chosen.model.model_dump(mode="json") == record["entries"][0]["config"]
    assert "suits this log best" in out and f"recsys run {folder / 'chosen.toml'}" in out
    assert not (folder / "trial").exists()

    message, _, _ = recsys("tune", file)
    assert message == f"recsys: {folder / 'race.json'} holds a race: begin anew with --replace"
    message, _, _ = recsys("tune", file, "--resume")
    assert "a race cannot go on" in message
    message, _, _ = recsys("tune", file, "--retriever", "als")
    assert "tune.retrievers" in message
    message, _, _ = recsys("tune", file, 'tune.retrievers=["magic"]')
    assert "magic" in message and "sasrec" in message


@dataclass
class Fake:
    """Gets as good as it may, whatever the time."""

    value: float
    stops: bool = False
    got: list[float] = field(default_factory=list)
    left: bool = False

    @property
    def over(self) -> bool:
        return self.stops and bool(self.got)

    def train(self, seconds: float) -> None:
        self.got.append(round(seconds))

    def leave(self) -> None:
        self.left = True


def test_the_better_half_goes_on() -> None:
    """Five minutes of four: a hundred seconds a round, and what is left over goes on."""
    racers = [Fake(0.1), Fake(0.4), Fake(0.3), Fake(0.2)]
    halve(racers, 300)
    assert [racer.got for racer in racers] == [[25], [25, 75, 300], [25, 75], [25]]
    assert [racer.left for racer in racers] == [True, False, True, True]
    alone, stopped = Fake(0.1), Fake(0.9, stops=True)
    halve([alone, stopped], 60)
    assert (alone.got, stopped.got) == ([15, 60], [15])  # who cannot get better needs no time
    halve([], 60)
