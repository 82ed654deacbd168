"""Files in object storage read as those on the disk do, against a server of S3's protocol."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_storage import KEY, SECRET, Storage, forget_filesystems

from feature_store.errors import DataError
from feature_store.parquet import check_parquet, open_parquet, read_batches, read_parquet
from feature_store.sources.paths import find
from feature_store.storage import Remote, calls, copy_to, digest_of, place, ranges


def put(storage: Storage, file: Path, name: str) -> Remote:
    at = place(f"{storage.url}/{name}")
    assert isinstance(at, Remote)
    at.filesystem.put(str(file), at.key)
    storage.requests.clear()
    return place(str(at))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 columns of 4 row groups, one of lists, of about 2 MB."""
    rng = np.random.default_rng(0)
    columns = {f"c{number}": pa.array(rng.random(6000)) for number in range(40)}
    lists = pa.ListArray.from_arrays(np.arange(6001, dtype=np.int32) * 2, pa.array(range(12000)))
    path = tmp_path_factory.mktemp("wide") / "wide.parquet"
    table = pa.table({**columns, "list": lists})
    pq.write_table(table, path, row_group_size=1500, write_page_checksum=True)
    return path


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_PAUSE", 0.001)


def test_a_file_reads_as_on_the_disk(storage: Storage, wide: Path, tmp_path: Path) -> None:
    at, expected = put(storage, wide, "one/wide.parquet"), read_parquet(wide)
    assert read_parquet(at).equals(expected)
    assert read_parquet(at.parent, ["list", "c7"]).equals(expected.select(["list", "c7"]))
    batches = list(read_batches(at, 1000))
    assert pa.Table.from_batches(batches).equals(expected)
    assert [batch.num_rows for batch in batches] == [1000, 500] * 4
    check_parquet(at)
    copy_to(at, tmp_path / "copy.parquet")
    assert (tmp_path / "copy.parquet").read_bytes() == wide.read_bytes()
    assert digest_of(at) == digest_of(wide)


def test_of_a_wide_table_no_more_is_fetched_than_the_columns_asked(
    storage: Storage, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_GAP", 0)
    at = put(storage, wide, "projected.parquet")
    file = open_parquet(at)
    footer = sum(request.bytes or 0 for request in storage.fetched)
    assert footer <= 64 << 10 and len(storage.fetched) == 1
    storage.requests.clear()
    rows = file.read_row_group(2, columns=["c3", "c30", "list"])
    assert rows.equals(read_parquet(wide, ["c3", "c30", "list"]).slice(3000, 1500))
    group = file.metadata.row_group(2)
    chunks = [group.column(place).total_compressed_size for place in (3, 30, 40)]
    assert sorted(request.bytes or 0 for request in storage.fetched) == sorted(chunks)


def test_neighbouring_columns_are_one_request(storage: Storage, wide: Path) -> None:
    file = open_parquet(put(storage, wide, "joined.parquet"))
    storage.requests.clear()
    file.read_row_group(0)
    assert len(storage.fetched) == 1


def test_while_a_row_group_is_used_the_next_is_fetched(storage: Storage, wide: Path) -> None:
    batches = read_batches(put(storage, wide, "ahead.parquet"), 1500)
    next(batches)
    next(batches)
    for _ in range(100):
        if len(storage.fetched) >= 4:  # the footer, and three row groups, of which one was asked
            break
        time.sleep(0.01)
    assert len(storage.fetched) == 4


@pytest.mark.parametrize("failures", [1, calls.ATTEMPTS - 1])
def test_what_fails_for_a_while_is_tried_again(storage: Storage, wide: Path, failures: int) -> None:
    at = put(storage, wide, "flaky.parquet")
    storage.failing = failures
    assert read_parquet(at, ["c1"]).num_rows == 6000
    assert storage.failing == 0


def test_what_goes_on_failing_is_one_line_that_names_it(storage: Storage, wide: Path) -> None:
    at = put(storage, wide, "down.parquet")
    storage.failing = 1000
    try:
        with pytest.raises(DataError, match=r"s3://\S+/down.parquet cannot be reached") as down:
            read_parquet(at)
        assert "after 5 attempts" in str(down.value) and "\n" not in str(down.value)
        assert 1000 - storage.failing == calls.ATTEMPTS
    finally:
        storage.failing = 0


def test_no_message_and_no_log_holds_credentials(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def deny(*arguments: object) -> None:
        raise PermissionError(f"{KEY} may not, with the signature of {SECRET}")

    caplog.set_level(logging.INFO)
    at = place(f"{storage.url}/denied.parquet")
    assert isinstance(at, Remote)
    monkeypatch.setattr(at.filesystem, "info", deny)
    with pytest.raises(DataError, match="may not") as denied:
        open_parquet(at)
    for text in (str(denied.value), repr(at), caplog.text):
        assert KEY not in text and SECRET not in text


def test_without_credentials_it_is_told_at_once_where_they_belong(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_filesystems()
    try:
        with pytest.raises(DataError, match=r"Unable to locate credentials.*environment"):
            place(f"{storage.url}/x.json").read_text()  # type: ignore[union-attr]
    finally:
        forget_filesystems()


def test_what_is_not_there_is_told_as_of_the_disk(storage: Storage) -> None:
    nothing = place(f"{storage.url}/nothing")
    with pytest.raises(DataError, match="nothing cannot be read: there is no such file"):
        open_parquet(nothing)
    assert not nothing.exists() and list(nothing.rglob("*")) == []


def test_files_are_found_by_folder_and_pattern(storage: Storage, tmp_path: Path) -> None:
    names = ("a/1.parquet", "a/2.csv", "a/_temporary/3.parquet", "a/b/4.parquet", "a/note.txt")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        put(storage, path, f"found/{name}")

    def below(pattern: str) -> list[str]:
        there = [str(path).partition("/found/")[2] for path in find(f"{storage.url}/{pattern}")]
        on_disk = [str(path.relative_to(tmp_path)) for path in find(f"{tmp_path}/{pattern[6:]}")]  # type: ignore[union-attr]
        assert there == on_disk
        return there

    assert below("found/a") == ["a/1.parquet", "a/2.csv", "a/b/4.parquet"]
    assert below("found/a/*.parquet") == ["a/1.parquet"]
    assert below("found/a/**/*.parquet") == ["a/1.parquet", "a/b/4.parquet"]
    assert below("found/*/?.csv") == ["a/2.csv"]
    assert below("found/a/1.parquet") == ["a/1.parquet"]
    with pytest.raises(DataError, match=r"no Parquet or CSV file is there"):
        find(f"{storage.url}/found/z*")
