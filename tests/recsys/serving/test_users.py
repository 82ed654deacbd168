"""Known users: found by id, each row where it was asked for, without the rest of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_store.errors import DataError
from recsys.serving.users import UsersFile, check_columns


def write(path: Path, ids: list[Any], rows: int = 10) -> UsersFile:
    table = pa.table({"user": ids, "history": [[f"i{n}"] * (n % 3) for n in range(len(ids))]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return UsersFile(path, "user")


@pytest.mark.parametrize("kind", [int, "u{}".format])
def test_every_user_has_the_row_that_is_asked_for(tmp_path: Path, kind: Any) -> None:
    """Across batches, in any order, more than once; unknown ones are null."""
    ids = [kind(3 * number) for number in range(95)]
    file = write(tmp_path / "users.arrow", ids)
    assert file.users().to_pylist() == ids
    asked = [ids[94], kind(1), ids[0], ids[11], None, ids[0], ids[10]]
    rows = file.of(pa.array(asked)).to_pydict()
    assert rows["user"] == [ids[94], None, ids[0], ids[11], None, ids[0], ids[10]]
    assert rows["history"] == [["i94"], None, [], ["i11"] * 2, None, [], ["i10"]]
    assert file.of(pa.array(asked), ["history"]).to_pydict() == {"history": rows["history"]}
    assert file.of(pa.array([], file.users().type)).num_rows == 0
    assert file.of(pa.array([kind(1)])).to_pydict() == {"user": [None], "history": [None]}


def test_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "users.arrow", [1, 2, 3])
    with pytest.raises(DataError, match="users must be of type int64"):
        file.of(pa.array(["someone"]))


def test_a_torn_file_is_named_and_an_empty_one_knows_nobody(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.arrow", [])
    assert len(empty.users()) == 0
    (tmp_path / "torn.arrow").write_bytes(b"ARROW1")
    with pytest.raises(DataError, match=r"torn\.arrow cannot be read"):
        UsersFile(tmp_path / "torn.arrow", "user")


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    """The file is mapped, not copied: its histories take no memory of their own."""
    before = pa.total_allocated_bytes()
    file = write(tmp_path / "users.arrow", list(range(200_000)), rows=1 << 16)
    file.of(pa.array([5, 150_000]), ["history"])
    assert pa.total_allocated_bytes() - before < 3_000_000  # 1.6 MB of which are the ids


def test_a_moment_cuts_every_list_down_to_what_was_before_it(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user": ["a", "b", "c"],
            "history": [["x", "y", "z"], [], ["w"]],
            "history_time": [[1, 2, 2], [], [3]],
            "bought": [["y"], [], []],
            "bought_time": [[2], [], []],
            "country": ["NL", None, "FR"],
        }
    )
    path = str(tmp_path / "users.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    file = UsersFile(tmp_path / "users.arrow", "user")
    asked = pa.array(["c", "a", "nobody", "b"])
    at_two = file.of(asked, before=2).to_pydict()
    assert at_two["history"] == [[], ["x"], None, []]
    assert at_two["history_time"] == [[], [1], None, []]
    assert at_two["bought"] == [[], [], None, []]
    assert at_two["country"] == ["FR", "NL", None, None]
    assert file.of(asked, ["history"], before=4).to_pydict() == {
        "history": [["w"], ["x", "y", "z"], None, []]
    }


def test_a_bundle_takes_no_events(tmp_path: Path) -> None:
    file = write(tmp_path / "users.arrow", [1])
    with pytest.raises(DataError, match=r"read only.*recsys online sync RUN sqlite:///users\.db"):
        file.append(pa.table({"user": [1]}))


def test_a_store_that_lacks_a_column_of_the_bundle_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "users.arrow", [1, 2])
    check_columns(store, store.schema)
    for expected, text in (
        (
            pa.schema([("clicks", pa.list_(pa.string()))]),
            "lacks the column 'clicks', which is list",
        ),
        (pa.schema([("user", pa.string())]), "has as int64 the column 'user', which is string"),
    ):
        with pytest.raises(DataError, match=text):
            check_columns(store, expected)
