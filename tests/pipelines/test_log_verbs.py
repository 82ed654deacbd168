"""`recsys log ...`, and `recsys ingest --append`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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


def test_append_says_what_joined_the_log(tmp_path: Path) -> None:
    (tmp_path / "daily.toml").write_text(
        f"""
        name = "daily"
        store = "{tmp_path / "log"}"
        retriever = {{ name = "popularity" }}

        [data]
        source = "parquet"
        path = "{tmp_path / "1.parquet"}"
        columns = {{ user = "user", item = "item", time = "time" }}
        """
    )
    for day in (1, 2):
        table = {"user": ["a", "b"], "item": ["x", "y"], "time": ["2024-01-01", f"2024-01-0{day}"]}
        pq.write_table(pa.table(table), tmp_path / f"{day}.parquet")

    def ingest(*words: str) -> str:
        done = CliRunner().invoke(app, ["ingest", str(tmp_path / "daily.toml"), *words])
        return done.output or str(done.exception)

    assert "2 events of 2 users" in ingest()
    day = f"data.path={tmp_path / '2.parquet'}"
    told = ingest("--append", day)
    assert told.startswith(f"{tmp_path / 'log'}: 1 new events of 2; 1 that the log held; from 2024")
    assert "choose one" in ingest("--append", "--replace")
    assert "with --append, replace it with --replace" in ingest(f"data.path={tmp_path}/*.parquet")
