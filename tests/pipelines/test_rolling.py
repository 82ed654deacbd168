"""Figures at several origins, against those that were worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store.errors import ConfigError
from feature_store.protocols import GlobalTime
from pipelines.rolling import rolling
from pipelines.rolling_table import rolling_table
from pipelines.run import resolve
from recsys.runs.rolling import origins_of, summarise

Tree = dict[str, Any]

# who had what on which day; all at noon, and the last at one o'clock: a window ends with the log
EVENTS = (
    *((1, "ann", "a"), (1, "bob", "a"), (1, "cat", "a"), (1, "bob", "b")),
    *((2, "ann", "b"), (2, "cat", "c"), (3, "ann", "c"), (3, "bob", "c")),
    *((4, "cat", "b"), (4, "bob", "d"), (5, "ann", "d"), (5, "cat", "e"), (5, "bob", "e")),
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    rows = [(user, item, f"2024-05-0{day} {12 + (day == 5)}:00") for day, user, item in EVENTS]
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(tmp_path / "log.csv", index=False)
    columns = {"user": "user", "item": "item", "time": "time"}
    return {
        "name": "toy",
        "output": str(tmp_path / "runs"),
        "data": {"source": "parquet", "path": str(tmp_path / "log.csv"), "columns": columns},
        "split": {"protocol": "global_time", "validation_days": 1, "test_days": 1},
        "retriever": {"name": "popularity"},
        "baselines": [],
        "evaluation": {"ks": [1], "replicates": 100},
        "tracking": {"enabled": False},
    }


def test_each_origin_knows_what_was_before_it_and_the_mean_is_of_origins(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Day 4: of those that were known cat lacks b alone, the best for her, and has it; bob has all
    that was known. Day 5: ann lacks d alone, and has it; nobody knew e."""
    config = resolve(tree)
    record = rolling(config, 2)
    told = record["figures"]["popularity"]["HR@1"]
    assert told["values"] == pytest.approx([1 / 2, 1 / 3])
    assert told["mean"] == pytest.approx(5 / 12)
    assert told["sd"] == pytest.approx(math.sqrt(2) / 12)  # 1 / 6 apart: that over root 2
    assert [origin["asked"] for origin in record["origins"]] == [2, 3]
    assert [origin["from"][:16] for origin in record["origins"]] == [
        "2024-05-04T12:00",
        "2024-05-05T13:00",
    ]
    assert json.loads((config.folder / "rolling.json").read_text()) == record
    table = rolling_table(record)
    assert table.columns[2].header == "2024-05-04\n2 asked" and table.row_count > 0
    results = json.loads((config.output / "toy-back1" / "metrics.json").read_text())
    assert results["protocol"] == "global_time-back1" and results["events"]["later"] == 3
    monkeypatch.setattr("pipelines.rolling.evaluate", lambda *_: 1 / 0)
    assert rolling(config, 2) == record  # what is done is not done again


def test_a_fingerprint_without_a_window_left_out_is_as_it_was() -> None:
    assert "windows_back" not in GlobalTime().settings
    assert GlobalTime(windows_back=1).settings["windows_back"] == 1


def test_origins_are_those_of_the_same_config_but_for_the_window(tree: Tree) -> None:
    first, last = origins_of(resolve(tree), 2)
    assert last == resolve(tree) and first.name == "toy-back1"
    assert first.to_dict()["split"]["windows_back"] == 1
    with pytest.raises(ConfigError, match=r"origins roll under split.protocol = 'global_time'"):
        origins_of(resolve(tree, ["split={protocol='leave_one_out'}"]), 2)


def test_what_is_not_known_at_every_origin_has_no_mean() -> None:
    told = summarise([{"m": {"HR@1": 0.5, "x": 1.0}, "old": {}}, {"m": {"HR@1": 0.25}}])
    assert told == {
        "m": {"HR@1": {"values": [0.5, 0.25], "mean": 0.375, "sd": told["m"]["HR@1"]["sd"]}}
    }
    assert summarise([{"m": {"HR@1": 0.5}}])["m"]["HR@1"]["sd"] is None
