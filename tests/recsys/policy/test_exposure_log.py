"""The log of what was shown: what was written is there once, whatever happens to the program."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError
from feature_store.ingest import ingest
from feature_store.parquet import read_parquet
from feature_store.sources.parquet import Columns, ParquetLog
from recsys.policy.exploration import Propensities
from recsys.policy.exposure_log import ExposureLog
from recsys.policy.exposures import exposure_schema, exposures, rows_of

COLUMNS = exposure_schema(pa.int64(), pa.string())


def rows(first: int, count: int = 2) -> pa.Table:
    users = list(range(first, first + count))
    return pa.table(
        {
            "user": users,
            "item": ["a"] * count,
            "event_type": ["click"] * count,
            "time": [1_700_000_000] * count,
        }
    )


def written(folder: Path) -> list[int]:
    return sorted(read_parquet(folder)["user"].to_pylist())


def test_lists_become_rows() -> None:
    """Of three lists of two places: one that ends after the first, and nobody's, which has none."""
    chances = Propensities(np.full((3, 2), 0.5), np.full((3, 2), 0.25))
    table = exposures(
        COLUMNS,
        users=pa.array([7, 8, None]),
        items=pa.array(["a", "b", "c"]),
        places=np.array([[2, 0], [1, -1], [0, 1]]),
        propensities=chances,
        times=pa.array([1, 2, 3], pa.timestamp("s")),
        lists=["x", "y", "z"],
        arms=["A", "B", "A"],
        bundles=["v1", "v2", "v1"],
        prices=np.array([1.5, np.nan, 3.0]),
    )
    assert table.schema == COLUMNS
    assert table["user"].to_pylist() == [7, 7, 8] and table["item"].to_pylist() == ["c", "a", "b"]
    assert table["place"].to_pylist() == [1, 2, 1]
    assert table["list_id"].to_pylist() == ["x", "x", "y"]
    assert table["arm"].to_pylist() == ["A", "A", "B"]
    assert table["propensity"].to_pylist() == [0.25] * 3
    assert table["given_prefix"].to_pylist() == [0.5] * 3
    assert table["price"].to_pylist() == [3.0, 1.5, None]
    assert table["quantity"].null_count == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event_type": ["view"]}, "'view' is none of: exposure, click, purchase"),
        ({"user": [None]}, "row 0, column 'user': '' is null"),
        ({"place": ["first"]}, "column 'place': 'first' is not an integer"),
        ({"colour": ["red"]}, "unknown columns colour"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of({**rows(1, 1).to_pydict(), **change}, COLUMNS)


def test_segments_are_published_when_they_are_full_or_old_or_closed(tmp_path: Path) -> None:
    with ExposureLog(tmp_path, COLUMNS, rows=3) as log:
        log.write(rows(0))
        assert not list(tmp_path.glob("*.parquet")), "a segment that is open is hidden"
        log.write(rows(2))
        assert written(tmp_path) == [0, 1, 2, 3]
        log.write(rows(4))
    assert written(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert len(list(tmp_path.iterdir())) == 2, "no journal is left"
    with ExposureLog(tmp_path, COLUMNS, seconds=-1) as log:
        log.write(rows(6))
        log.write(rows(8))
        assert written(tmp_path)[-1] == 7


def test_a_killed_program_loses_nothing_that_it_had_written(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        log = ExposureLog(tmp_path, COLUMNS)
        log.write(rows(0))
        log.write(rows(2))
        os._exit(0)  # as a kill: nothing is closed
    os.waitpid(child, 0)
    assert not list(tmp_path.glob("*.parquet"))
    ExposureLog(tmp_path, COLUMNS)
    assert written(tmp_path) == [0, 1, 2, 3]


def test_a_torn_write_leaves_those_before_it(tmp_path: Path) -> None:
    """A journal that was cut anywhere has the writes that were whole by then."""
    live = tmp_path / "live"
    log = ExposureLog(live, COLUMNS)
    ends = []
    for first in (0, 2):
        log.write(rows(first))
        (journal,) = live.glob(".*.journal")
        ends.append(journal.stat().st_size)
    data = journal.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    cuts = {0: 0, 5: 0, ends[0] - 1: 0, ends[0]: 2, ends[0] + 3: 2, ends[1] - 1: 2, ends[1]: 4}
    cases = [(data[:cut], count) for cut, count in cuts.items()]
    for number, (content, count) in enumerate([*cases, (flipped, 2), (data + b"\0" * 99, 4)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / journal.name).write_bytes(content)
        ExposureLog(folder, COLUMNS)
        assert (written(folder) if count else []) == list(range(count))
        assert not list(folder.glob(".*")), "nothing hidden is left"


def test_what_was_published_before_the_kill_is_not_published_again(tmp_path: Path) -> None:
    """Killed between the Parquet file and the journal's removal."""
    log = ExposureLog(tmp_path, COLUMNS)
    log.write(rows(0))
    (journal,) = tmp_path.glob(".*.journal")
    kept = journal.read_bytes()
    log.close()
    journal.write_bytes(kept)
    ExposureLog(tmp_path, COLUMNS)
    assert written(tmp_path) == [0, 1] and not journal.exists()


def test_another_programs_open_segment_is_left_alone(tmp_path: Path) -> None:
    first, second = ExposureLog(tmp_path, COLUMNS), ExposureLog(tmp_path, COLUMNS)
    first.write(rows(0))
    second.write(rows(2))
    ExposureLog(tmp_path, COLUMNS)
    assert not list(tmp_path.glob("*.parquet"))
    first.close()
    second.close()
    assert written(tmp_path) == [0, 1, 2, 3]


def test_after_a_write_that_failed_the_next_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ExposureLog(tmp_path, COLUMNS)
    log.write(rows(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(DataError, match="No space left"):
            log.write(rows(2))
    log.write(rows(4))
    log.close()
    assert written(tmp_path) == [0, 1, 4, 5]


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_an_ingest_takes_the_log_as_it_is(tmp_path: Path) -> None:
    chances = Propensities(np.array([[0.5, 0.4]]), np.array([[0.5, 0.3]]))
    with ExposureLog(tmp_path / "shown", COLUMNS) as log:
        log.write(
            exposures(
                COLUMNS,
                users=pa.array([7]),
                items=pa.array(["a", "b"]),
                places=np.array([[1, 0]]),
                propensities=chances,
                times=pa.array([1_700_000_000], pa.timestamp("s")),
                lists=["x"],
                arms=["A"],
                bundles=["v1"],
            )
        )
        bought = {"event_type": ["purchase"], "list_id": ["x"], "price": [2.5], "quantity": [2]}
        log.write(pa.table({**rows(7, 1).to_pydict(), **bought}))
    (file,) = (tmp_path / "shown").glob("*.parquet")
    assert pq.read_schema(file).equals(COLUMNS)
    roles = Columns(
        user="user",
        item="item",
        time="time",
        event_type="event_type",
        price="price",
        quantity="quantity",
        propensity="propensity",
        list="list_id",
        place="place",
    )
    source = ParquetLog(
        path=str(tmp_path / "shown"), columns=roles, features=("given_prefix", "arm", "bundle")
    )
    report = ingest(source, tmp_path / "store")
    assert report.events.stored == 3 and report.events.quarantined == 0 and source.renamed == {}
