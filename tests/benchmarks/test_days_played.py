"""The days of `benchmarks.daily`: what comes late and twice is there, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.daily import play, summary, write_log
from feature_store.sources import Synthetic

SOURCE = Synthetic(users=100, items=50, clusters=4, events=12, days=9, drift=1.0)


def test_every_event_comes_once_or_twice_and_some_are_late(tmp_path: Path) -> None:
    first, *rest = write_log(tmp_path / "arrived", SOURCE, 6, new=0.0)
    assert [path.stem for path in rest] == ["2024-01-07", "2024-01-08", "2024-01-09"]
    tables = [pq.read_table(path) for path in (first, *rest)]
    everything = pa.concat_tables([chunk.table for chunk in SOURCE.read_events()])
    came = pa.concat_tables(tables)
    distinct = {tuple(row.values()) for row in came.to_pylist()}
    assert distinct == {tuple(row.values()) for row in everything.to_pylist()}
    assert everything.num_rows < came.num_rows < 1.1 * everything.num_rows
    assert any(str(t) < "2024-01-07" for t in tables[1]["time"].to_pylist())


def test_days_are_played(tmp_path: Path) -> None:
    small = ["retriever.width=8", "retriever.max_length=10", "trainer.epochs=1", "daily.epochs=1"]
    source = SOURCE.model_copy(update={"days": 8})
    told = play(tmp_path, source, 7, [*small, "retriever.blocks=1", "daily.max_fall=0.9"])
    assert told["days"] == 1 and told["read"] > told["arrived"] and told["repeated"] > 0
    assert "<svg" in (tmp_path / "daily" / "days.html").read_text()


def test_the_last_line_holds_means_over_days() -> None:
    def day(fresh: float, stale: float, state: str) -> dict[str, Any]:
        gate = {"metric": "NDCG@10", "fresh": fresh, "served": 0.2}
        arrived = {"stored": 10, "late": 1, "repeated": 2}
        return {
            "day": "d", "state": state, "gate": gate, "stale": stale, "arrived": arrived,
            "rows": {"read": 5, "log": 50}, "seconds": {"a": 1.0, "b": 2.0}, "delta_bytes": 1,
            "bundle_bytes": 9,
        }  # fmt: skip

    first = {"seconds": {"a": 9.0}, "arrived": {}, "day": "c"}
    told = summary([first, day(0.3, 0.1, "published"), day(0.5, 0.2, "held back")])
    assert (told["fresh"], told["stale"], told["late_gain"]) == (0.4, 0.15, 0.3)
    assert (told["held"], told["late"]) == (1, 2)
    assert (told["seconds_first"], told["seconds_median"]) == (9, 3)
