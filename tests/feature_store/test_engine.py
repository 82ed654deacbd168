"""The engine: what it promises of memory, disk and what it leaves behind."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from feature_store.engine import Engine, EngineConfig
from feature_store.engine import config as module
from feature_store.errors import DataError


@pytest.fixture(autouse=True)
def spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write_numbers(folder: Path, rows: int) -> Path:
    random = np.random.default_rng(0)
    numbers = {"a": random.integers(0, rows, rows), "b": random.integers(0, 9, rows)}
    pq.write_table(pa.table(numbers), folder / "numbers.parquet")
    return folder / "numbers.parquet"


def test_what_does_not_fit_is_sorted_on_disk_and_leaves_no_file(
    tmp_path: Path, spill: Path
) -> None:
    """4 million rows of 16 bytes, which a sort holds with their keys, in 64 MiB."""
    path = write_numbers(tmp_path, 4_000_000)
    with Engine(EngineConfig(memory_gb=1 / 16, threads=1)) as engine:
        rows = engine.scan([path])
        last, seen, spilled = -1, 0, False
        for batch in engine.stream(rows.order_by("a")):
            values = batch.column("a").to_numpy()
            assert values[0] >= last and (np.diff(values) >= 0).all()
            last, seen = values[-1], seen + len(values)
            spilled = spilled or any(path.is_file() for path in spill.rglob("*"))
    assert seen == 4_000_000 and spilled
    assert list(spill.iterdir()) == []


def test_too_little_memory_is_an_error_of_one_line_that_names_the_option(tmp_path: Path) -> None:
    path = write_numbers(tmp_path, 2_000_000)
    with Engine(EngineConfig(memory_gb=1 / 64, threads=2)) as engine:
        rows = engine.scan([path])
        lists = rows.group_by("b").aggregate(every=rows["a"].collect())
        with pytest.raises(DataError, match=r"more than engine.memory_gb = 0.015625 GiB") as error:
            engine.collect(lists)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, spill: Path
) -> None:
    engine = Engine()
    rows = engine.table(pa.table({"a": [1]}))

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(rows), "to_pyarrow", full)
    with pytest.raises(DataError, match=f"the disk below {spill}.* set TMPDIR to another"):
        engine.collect(rows)


def test_a_stream_without_rows_still_says_what_columns_there_are() -> None:
    with Engine() as engine:
        rows = engine.table(pa.table({"a": [1, 2]}))
        (batch,) = engine.stream(rows.filter(rows["a"] > 5))
    assert batch.num_rows == 0 and batch.schema.names == ["a"]


def test_memory_is_by_default_a_share_of_what_the_machine_or_container_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(module, "_CGROUP_LIMIT", limit)
    for text, gib in (("max", None), (str(8 << 30), 2.0), (str(1 << 30), 1.0)):
        limit.write_text(text + "\n")
        found = EngineConfig().memory_gib
        assert 1 <= found <= 4 if gib is None else found == gib
    assert EngineConfig(memory_gb=0.5).memory_gib == 0.5


def test_an_engine_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="kind"):
        EngineConfig(kind="abacus")  # type: ignore[arg-type]
