"""Reader: every row once, in an order that depends on seed and epoch alone, from any position."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import ConfigError, DataError
from recsys.data.batch import Batch
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader


def history_of(row: int) -> list[int]:
    """A list that says whose it is; every seventh is empty."""
    return [row * 100 + place for place in range(row * 5 % 7)]


def write(path: Path, rows: int, row_group: int, first: int = 0) -> Path:
    ids = range(first, first + rows)
    table = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "history": pa.array([history_of(row) for row in ids], pa.list_(pa.int32())),
            "tags": pa.array([[row + 1] * (row % 3) for row in ids], pa.list_(pa.int64())),
            "when": pa.array([[(row + 1) << 32] for row in ids], pa.list_(pa.int64())),
            "price": pa.array([row / 2 for row in ids], pa.float32()),
            "label": pa.array([row % 2 for row in ids], pa.int64()),
        }
    )
    pq.write_table(table, path, row_group_size=row_group)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 rows in 50 row groups."""
    return write(tmp_path_factory.mktemp("reader") / "rows.parquet", 1000, 20)


def ids(reader: Reader) -> list[list[int]]:
    """The rows of every batch of the rest of the epoch."""
    return [batch.id("id").tolist() for batch in reader]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def check_rows_are_whole(batch: Batch) -> None:
    """All columns of a row belong to that row."""
    rows = batch.id("id").tolist()
    histories = batch.padded("history").tolist()
    for row, history in zip(rows, histories, strict=True):
        own = history_of(row)
        assert history[: len(own)] == own and not any(history[len(own) :])
    # one width of integers, whatever the file's: past 32 bits, beside lists of 32-bit values
    assert batch.lists is not None and batch.lists.values().dtype == torch.int64
    assert batch.padded("when").tolist() == [[(row + 1) << 32] for row in rows]
    assert batch.column("price").tolist() == [row / 2 for row in rows]
    assert batch.labels is not None and batch.labels.tolist() == [[row % 2] for row in rows]
    assert batch.jagged("tags").lengths().tolist() == [row % 3 for row in rows]
    assert batch.jagged("tags").values().tolist() == [
        row + 1 for row in rows for _ in range(row % 3)
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_row_comes_once_whole_and_alike_on_one_process_and_on_several(
    data: st.DataObject,
) -> None:
    draw = data.draw
    rows = draw(st.integers(8, 80), "rows")
    world = draw(st.sampled_from([1, 2, 3, 4]), "world")
    lanes = world * draw(st.integers(1, 2), "lanes of a rank")
    config = ReaderConfig(
        batch_size=draw(st.integers(lanes, 30), "batch_size"),
        buffer_row_groups=draw(st.integers(1, 5), "buffer"),
        workers=draw(st.integers(1, 3), "workers"),
        bucket_batches=draw(st.integers(0, 3), "bucket"),
        lanes=lanes,
    )
    shuffle = draw(st.booleans(), "shuffle")
    options: dict[str, Any] = {"bucket_by": "history", "shuffle": shuffle}
    with tempfile.TemporaryDirectory() as folder:
        cut = draw(st.integers(1, rows - 1), "rows of the first file")
        group = draw(st.integers(1, 15), "row group")
        files = [
            write(Path(folder) / "a.parquet", cut, group),
            write(Path(folder) / "b.parquet", rows - cut, group, first=cut),
        ]
        alone = Reader(files, config, **options)
        whole = list(alone)
        for batch in whole:
            check_rows_are_whole(batch)
        ranks = [ids(Reader(files, config, rank=r, world=world, **options)) for r in range(world)]
    found = [batch.id("id").tolist() for batch in whole]
    assert sorted(flat(found)) == list(range(rows))
    assert len(found) == len(alone)
    assert [len(rank) for rank in ranks] == [len(found)] * world
    assert [flat(list(parts)) for parts in zip(*ranks, strict=True)] == found
    sizes = [len(batch) for batch in found]
    assert max(sizes) - min(sizes) <= lanes


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_rows_that_belong_together_come_in_one_batch(data: st.DataObject) -> None:
    """Of one block and lane no batch cuts them, as long as a batch holds them at all."""
    draw = data.draw
    groups = draw(st.lists(st.integers(0, 6), min_size=2, max_size=60), "groups")  # 0 is none
    size = draw(st.integers(max(2, *map(groups.count, groups)), 70), "batch_size")
    config = ReaderConfig(batch_size=size, lanes=1, buffer_row_groups=10)
    columns = {
        "id": pa.array(range(len(groups)), pa.int64()),
        "group": pa.array(groups, pa.int64()),
    }
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(columns), Path(folder) / "rows.parquet", row_group_size=7)
        path = Path(folder) / "rows.parquet"
        reader = Reader(path, config, together="group")
        batches = ids(reader)
        assert sorted(flat(batches)) == list(range(len(groups))) and all(batches)
        assert len(batches) == len(reader)
        if max(map(groups.count, range(1, 7))) <= size // 2:  # there is room to move a cut back
            told = [{groups[row] for row in batch} - {0} for batch in batches]
            assert sum(map(len, told)) == len(set(groups) - {0})
        reader.load_state_dict({**reader.state_dict(), "epoch": 0, "next_batch": 1})
        assert ids(reader) == batches[1:]  # from any position
        two = config.model_copy(update={"lanes": 2, "buffer_row_groups": 1})
        shared = [ids(Reader(path, two, together="group", rank=r, world=2)) for r in (0, 1)]
        one = ids(Reader(path, two, together="group"))
        assert [flat(list(parts)) for parts in zip(*shared, strict=True)] == one
        assert sorted(flat(one)) == list(range(len(groups)))


def test_without_shuffling_rows_come_in_the_order_of_the_file(path: Path) -> None:
    reader = Reader(path, ReaderConfig(batch_size=64), shuffle=False)
    assert flat(ids(reader)) == list(range(1000))
    assert reader.num_rows == 1000 and len(reader) == 16


@pytest.mark.parametrize("bucket", [0, 4])
def test_seeds_and_epochs_shuffle_differently_and_the_same_seed_alike(
    path: Path, bucket: int
) -> None:
    config = ReaderConfig(batch_size=50, buffer_row_groups=8, bucket_batches=bucket)
    reader = Reader(path, config, seed=1, bucket_by="history")
    first, second = ids(reader), ids(reader)
    assert reader.epoch == 2
    assert first != second and sorted(flat(first)) == sorted(flat(second))
    again = Reader(path, config, seed=1, bucket_by="history")
    assert [ids(again), ids(again)] == [first, second]
    assert ids(Reader(path, config, seed=2, bucket_by="history")) != first


def test_shuffling_reaches_across_the_file(path: Path) -> None:
    order = np.array(flat(ids(Reader(path, ReaderConfig(batch_size=50), seed=3))))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.3
    assert abs(order[:500].mean() - 499.5) < 100
    assert (np.diff(order) == 1).mean() < 0.05  # neighbours of a row group are parted as well


@pytest.mark.parametrize(("done", "epochs"), [(0, 0), (1, 0), (7, 0), (19, 0), (20, 0), (3, 2)])
def test_a_new_reader_goes_on_exactly_where_another_stopped(
    path: Path, done: int, epochs: int
) -> None:
    config = ReaderConfig(batch_size=50, buffer_row_groups=5, workers=2, lanes=2)
    uninterrupted = Reader(path, config, seed=1, bucket_by="history")
    expected = [ids(uninterrupted) for _ in range(epochs + 2)]

    stopped = Reader(path, config, seed=1, bucket_by="history")
    for _ in range(epochs):
        ids(stopped)
    batches: Iterator[Batch] = iter(stopped)
    for _ in range(done):
        next(batches)
    resumed = Reader(path, config, seed=1, bucket_by="history")
    resumed.load_state_dict(stopped.state_dict())
    assert ids(resumed) == expected[epochs][done:]
    assert ids(resumed) == expected[epochs + 1]


def test_resuming_reads_nothing_of_what_is_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_reads(monkeypatch)
    reader = Reader(path, ReaderConfig(batch_size=20, buffer_row_groups=5))
    reader.load_state_dict({**reader.state_dict(), "next_batch": 45})
    assert len(ids(reader)) == 5
    assert len(read) <= 5


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Row groups as they are read."""
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def record(self: pq.ParquetFile, index: int, **options: Any) -> pa.Table:
        read.append(index)
        return original(self, index, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", record)
    return read


@pytest.mark.parametrize("workers", [1, 3])
def test_few_row_groups_are_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    read = count_reads(monkeypatch)
    config = ReaderConfig(batch_size=20, buffer_row_groups=4, workers=workers)
    batches = iter(Reader(path, config))
    for done in range(1, 10):
        next(batches)
        time.sleep(0.02)  # the threads read as far ahead as they may
        # rows of 20 are one row group a batch: those done, and the blocks at hand and ahead
        assert len(read) <= done + (workers + 1) * 4
    assert len(read) >= 9


def test_only_the_last_values_are_kept_of_long_lists(path: Path) -> None:
    reader = Reader(path, ReaderConfig(batch_size=100), max_lengths={"history": 2})
    for batch in reader:
        rows = batch.id("id").tolist()
        values = [value for row in rows for value in history_of(row)[-2:]]
        assert batch.jagged("history").values().tolist() == values


def test_bucketing_needs_less_padding(path: Path) -> None:
    def padded(bucket: int) -> int:
        config = ReaderConfig(batch_size=20, bucket_batches=bucket)
        return sum(b.padded("history").numel() for b in Reader(path, config, bucket_by="history"))

    assert padded(16) < 0.75 * padded(0)


def test_short_and_long_buckets_come_in_random_order(path: Path) -> None:
    config = ReaderConfig(batch_size=20, buffer_row_groups=50, bucket_batches=50)
    reader = Reader(path, config, bucket_by="history")
    means = [float(batch.jagged("history").lengths().float().mean()) for batch in reader]
    assert max(means) - min(means) == 6  # sorted: lengths are 0 to 6
    assert abs(np.corrcoef(means, np.arange(50))[0, 1]) < 0.5


def test_only_the_asked_columns_are_read_and_missing_ones_are_named(path: Path) -> None:
    reader = Reader(path, ReaderConfig(), columns=["history", "id"])
    batch = next(iter(reader))
    assert batch.id_names == ("id",)
    assert batch.lists is not None and batch.lists.keys() == ["history"]
    with pytest.raises(DataError, match=r"rows.parquet lacks age, zip; it has: id, history, tags"):
        Reader(path, ReaderConfig(), columns=["id", "zip", "age"])


def test_settings_that_cannot_be_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lanes = 3 cannot be split over 2"):
        Reader(path, ReaderConfig(lanes=3), world=2)
    with pytest.raises(ConfigError, match="at least the 8 lanes"):
        Reader(path, ReaderConfig(lanes=8, batch_size=4))
    with pytest.raises(DataError, match="2 rows, too few for 4 lanes: start at most 2 proc"):
        ids(Reader(write(tmp_path / "few.parquet", 2, 1), ReaderConfig(lanes=4)))


def test_absent_and_torn_files_are_named(path: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.parquet"
    whole = path.read_bytes()
    with pytest.raises(DataError, match=r"torn.parquet cannot be read"):
        Reader(torn, ReaderConfig())
    torn.write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"torn.parquet cannot be read"):
        Reader(torn, ReaderConfig())
    torn.write_bytes(whole[:100] + bytes(200) + whole[300:])
    with pytest.raises(DataError, match=r"torn.parquet cannot be read"):
        ids(Reader(torn, ReaderConfig()))


def test_nulls_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([1, None])}), tmp_path / "n.parquet")
    with pytest.raises(DataError, match=r"'id'.*nulls"):
        ids(Reader(tmp_path / "n.parquet", ReaderConfig()))
