"""`recsys log ...`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from typer.testing import CliRunner

from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from pipelines.cli import app


def test_compact_says_how_many_files_there_were_and_are(tmp_path: Path) -> None:
    features = [Feature(name=name, kind="id", side=name) for name in ("user", "item")]
    log = EventLog.create(tmp_path, Schema(user="user", item="item", features=tuple(features)))
    for day in range(1, 6):
        log.append(pa.table({"user": ["a"], "item": ["b"], "time": [f"2024-01-0{day}"]}))
    done = CliRunner().invoke(app, ["log", "compact", str(tmp_path), "--rows", "4"])
    assert done.output == f"{tmp_path}: 5 files are 2 now\n"
    assert log.num_rows == 5
    assert "not found" in str(CliRunner().invoke(app, ["log", "compact", "none"]).exception)
