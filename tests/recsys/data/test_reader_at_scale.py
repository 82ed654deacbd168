"""Files as other programs leave them: uneven, tiny, wide, encoded otherwise, in object storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_storage import Storage

from feature_store.errors import DataError
from feature_store.storage import calls, place, ranges
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader

COLUMNS = ["id", "history"]


def write(folder: Path, sizes: list[int], **options: Any) -> list[Path]:
    """Files of so many rows, numbered on; 30 further columns that nobody asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = options.pop("wide", 0)
    files, first = [], 0
    for number, rows in enumerate(sizes):
        ids = np.arange(first, first + rows)
        table = {
            "id": pa.array(ids),
            "history": pa.array([[int(i), int(i) + 1] for i in ids], pa.list_(pa.int64())),
            **{f"wide_{n}": pa.array(np.full(rows, n / 7)) for n in range(wide)},
        }
        files.append(folder / f"{number:05d}.parquet")
        pq.write_table(pa.table(table), files[-1], **options)
        first += rows
    return files


def ids(files: Any, world: int = 1, **options: Any) -> list[list[int]]:
    """The rows of every batch of an epoch, over all ranks."""
    config = ReaderConfig(batch_size=32, lanes=world, workers=2)
    ranks = [
        Reader(files, config, columns=COLUMNS, seed=3, rank=rank, world=world, **options)
        for rank in range(world)
    ]
    batches = []
    for parts in zip(*ranks, strict=True):
        batches.append([row for part in parts for row in part.id("id").tolist()])
        for part in parts:
            own = part.id("id").tolist()
            assert part.jagged("history").values().tolist() == [x for i in own for x in (i, i + 1)]
    return batches


@pytest.mark.parametrize(
    "sizes",
    [[1, 500, 3, 0, 96], [600], [0, 0, 600], [2] * 300],
    ids=["uneven", "one file, eight ranks", "empty files", "many tiny files"],
)
@pytest.mark.parametrize("world", [1, 8])
def test_every_row_comes_once_however_it_lies_in_files(
    tmp_path: Path, sizes: list[int], world: int
) -> None:
    batches = ids(write(tmp_path, sizes, row_group_size=50), world)
    assert sorted(row for batch in batches for row in batch) == list(range(600))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= world  # every rank has as many batches, of about 32


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": True, "compression": "snappy"},
        {"use_dictionary": False, "column_encoding": {"id": "DELTA_BINARY_PACKED"}},
        {"use_dictionary": False, "data_page_version": "2.0", "compression": "none"},
        {
            "use_dictionary": False,
            "column_encoding": {"history.list.element": "DELTA_BINARY_PACKED"},
            "compression": "gzip",
        },
    ],
)
def test_any_encoding_gives_the_same_batches(tmp_path: Path, options: dict[str, Any]) -> None:
    plain = ids(write(tmp_path / "plain", [70, 130], row_group_size=50))
    assert ids(write(tmp_path / "other", [70, 130], row_group_size=50, **options)) == plain


def put(storage: Storage, folder: Path, name: str) -> list[Any]:
    at = place(f"{storage.url}/{name}")
    at.filesystem.put(f"{folder}/", f"{at.key}/", recursive=True)  # type: ignore[union-attr]
    storage.requests.clear()
    return list(at.rglob("*.parquet"))


@pytest.mark.parametrize("world", [1, 3])
def test_object_storage_gives_the_batches_that_the_disk_gives(
    storage: Storage, tmp_path: Path, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PAUSE", 0.001)
    files = write(tmp_path, [1, 250, 3, 46], row_group_size=50, wide=30)
    remote = put(storage, tmp_path, f"world{world}")
    storage.failing = 3  # a server that is busy at first
    assert ids(remote, world) == ids(files, world)
    storage.requests.clear()
    resumed, expected = (
        Reader(paths, ReaderConfig(batch_size=32), columns=COLUMNS, seed=3)
        for paths in (remote, files)
    )
    for reader in (resumed, expected):
        reader.load_state_dict({**reader.state_dict(), "next_batch": 7})
    assert [b.id("id").tolist() for b in resumed] == [b.id("id").tolist() for b in expected]


def test_nothing_but_the_columns_asked_is_fetched_and_far_ahead(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_GAP", 0)
    files = write(tmp_path, [200] * 4, row_group_size=100, wide=30)
    remote = put(storage, tmp_path, "wide")
    config = ReaderConfig(batch_size=50, buffer_row_groups=2, workers=2)
    reader = Reader(remote, config, columns=["id"], seed=3)
    assert len(reader) == 16
    storage.requests.clear()
    batches = iter(reader)
    next(batches)
    # two row groups a block: of the one at hand and of two ahead, a request each
    assert 2 <= len(storage.fetched) <= 6
    assert len(list(batches)) == 15
    footers = [pq.read_metadata(path) for path in files]
    groups = [footer.row_group(group) for footer in footers for group in range(2)]
    wanted = sorted(group.column(0).total_compressed_size for group in groups)
    assert sorted(request.bytes or 0 for request in storage.fetched) == wanted


def test_row_groups_are_fetched_at_once_and_not_one_behind_the_other(
    storage: Storage, tmp_path: Path
) -> None:
    write(tmp_path, [80] * 3, row_group_size=10)
    remote = put(storage, tmp_path, "latency")
    reader = Reader(remote, ReaderConfig(batch_size=40, buffer_row_groups=8, workers=2), seed=1)
    assert len(reader) == 6
    storage.delay_s = 0.05
    running, most, original = 0, 0, Storage.__call__

    def watched(self: Storage, environ: Any, start: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return original(self, environ, start)
        finally:
            running -= 1

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Storage, "__call__", watched)
            assert len(list(reader)) == 6
    finally:
        storage.delay_s = 0.0
    assert most >= 6


def test_an_object_that_was_replaced_is_an_error_and_no_wrong_row(
    storage: Storage, tmp_path: Path
) -> None:
    write(tmp_path, [200], row_group_size=50)
    (remote,) = put(storage, tmp_path, "replaced")
    reader = Reader(remote, ReaderConfig(batch_size=50), columns=COLUMNS, seed=3)
    assert reader.num_rows == 200
    write(tmp_path, [20], row_group_size=5)
    put(storage, tmp_path, "replaced")
    with pytest.raises(DataError, match=r"00000\.parquet cannot be re"):
        list(reader)
