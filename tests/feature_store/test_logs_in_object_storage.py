"""Logs in object storage: raw files are ingested from there, and stores are read there."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from object_storage import Storage

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources.parquet import ParquetLog
from feature_store.storage import Remote, place
from feature_store.transfer import push

COLUMNS = {"user": "who", "item": "what", "time": "at"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of events in Parquet and CSV, and their items."""
    folder = tmp_path_factory.mktemp("raw")
    for day in (1, 2, 3):
        rows = pa.table(
            {"who": ["u1", "u2", f"v{day}"], "what": ["a", "b", "c"], "at": [f"2024-01-0{day}"] * 3}
        )
        if day == 2:
            pc.write_csv(rows, folder / "day2.csv")
        else:
            pq.write_table(rows, folder / f"day{day}.parquet")
    (folder / "items").mkdir()
    pq.write_table(
        pa.table({"what": ["a", "b"], "name": ["A", "B"]}), folder / "items" / "i.parquet"
    )
    return folder


def source(at: object) -> ParquetLog:
    return ParquetLog.model_validate(
        {"path": f"{at}/day*", "items": f"{at}/items", "columns": COLUMNS, "title": "name"}
    )


def test_raw_files_make_the_log_that_those_on_the_disk_make(
    storage: Storage, raw: Path, tmp_path: Path
) -> None:
    at = place(f"{storage.url}/raw")
    assert isinstance(at, Remote)
    push(raw, at)
    reports = [ingest(source(where), tmp_path / name) for where, name in ((raw, "d"), (at, "s"))]
    assert reports[0].log_fingerprint == reports[1].log_fingerprint
    assert reports[1].events.stored == 9 and reports[1].items.stored == 2
    before = source(at).fingerprint()
    assert source(at).fingerprint() == before
    (at / "day2.csv").write_bytes(b"who,what,at\nu1,a,2024-01-02\n")
    assert source(at).fingerprint() != before


def test_a_store_is_read_where_it_lies(storage: Storage, raw: Path, tmp_path: Path) -> None:
    ingest(source(raw), tmp_path / "store")
    at = place(f"{storage.url}/store")
    assert isinstance(at, Remote)
    push(tmp_path / "store", at)
    here, there = EventLog.open(tmp_path / "store"), EventLog.open(str(at))
    assert there.fingerprint == here.fingerprint and there.num_rows == 9
    there.check()
    assert [g.rows for g in there.row_groups(date(2024, 1, 2))] == [9]
    assert there.row_groups(date(2024, 1, 4)) == []
    assert ingest(source(raw), Path(str(at))) == ingest(source(raw), tmp_path / "store")
    other = source(raw).model_copy(update={"title": None})
    with pytest.raises(DataError, match="made from another source"):
        ingest(other, Path(str(at)))
    sides = [Catalogue(log.folder, log.schema) for log in (here, there)]
    assert sides[0].read("item").equals(sides[1].read("item"))
    assert sides[0].fingerprint == sides[1].fingerprint
    with Engine() as engine:
        events = engine.scan(there.files)
        late = events.filter(events["at"] >= date(2024, 1, 3)).select("who").order_by("who")
        assert engine.collect(late)["who"].to_pylist() == ["u1", "u2", "v3"]
    with pytest.raises(DataError, match="is in object storage"):
        there.append(pa.table({"who": ["u1"], "what": ["a"], "at": ["2024-01-01"]}))
