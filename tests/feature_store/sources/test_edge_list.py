"""Edge lists: every way in which graphs and published splits come, and what is wrong with some."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources import SourceConfig
from feature_store.sources.edge_list import EdgeList

TIMED = ("user", "item", "time")
SPLIT = {"train.txt": b"0 7 8\n1 9\n2\n", "test.txt": b"1 7\n0 5\n", "item_list.txt": b"id\n"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def edges(source: EdgeList, store: Path, *columns: str, **options) -> list[tuple]:
    ingest(source, store, **options)
    table = pq.read_table(EventLog.open(store).files).sort_by("position")
    names = ("user_id", "item_id", *columns)
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


@pytest.mark.parametrize(
    "content",
    [
        b"# FromNodeId\tToNodeId\r\n1\t2\r\n\r\n1\t3\r\n2\t1\r\n",
        b"1 2\n1  3\n# in between\n2 1",
        b"1,2\n1, 3\n2,1\n",
    ],
)
def test_pairs(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "g", {"edges.txt": content}) / "edges.txt"
    assert edges(EdgeList(path=path), tmp_path / "s") == [(1, 2), (1, 3), (2, 1)]
    schema = EdgeList(path=path).schema
    assert schema.clock == "none" and schema.published_role is schema.label is None


def test_times_labels_and_other_ids(tmp_path: Path) -> None:
    content = b"ann,New York,4.5,2010-10-19T23:55:27Z\nbob,Rome,1,86400\n"
    path = write(tmp_path / "g", {"ratings.csv": content}) / "ratings.csv"
    source = EdgeList(path=path, columns=("user", "item", "label", "time"), ids="string")
    found = edges(source, tmp_path / "s", "label", "time")
    assert [(u, i, label, f"{time}") for u, i, label, time in found] == [
        ("ann", "New York", 4.5, "2010-10-19 23:55:27"),
        ("bob", "Rome", 1.0, "1970-01-02 00:00:00"),
    ]
    assert source.schema.clock == "time" and source.schema.label == "label"


def test_adjacency_and_a_user_without_items(tmp_path: Path) -> None:
    path = write(tmp_path / "g", {"lists.txt": b"5 1 2\n6\n7 1 \n"}) / "lists.txt"
    source = EdgeList(path=path, format="adjacency")
    assert edges(source, tmp_path / "s") == [(5, 1), (5, 2), (7, 1)]
    assert source.schema.clock == "none"


def test_a_published_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "g", SPLIT)
    source = EdgeList(path=folder, format="adjacency")
    train = [(0, 7, "train"), (0, 8, "train"), (1, 9, "train")]
    test = [(1, 7, "test"), (0, 5, "test")]
    assert source.schema.published_role == "published_role"
    assert edges(source, tmp_path / "a", "published_role") == train + test
    write(folder, {"valid.txt": b"1 4\n"})
    source = EdgeList(path=folder, format="adjacency")
    expected = [*train, (1, 4, "validation"), *test]
    assert edges(source, tmp_path / "b", "published_role") == expected
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"graph/{path.name}")
    source = EdgeList(path=tmp_path / "g.zip", format="adjacency")
    assert edges(source, tmp_path / "c", "published_role") == expected


def test_a_published_split_of_pairs_keeps_its_times(tmp_path: Path) -> None:
    folder = write(tmp_path / "g", {"train.txt": b"1 2 50\n", "test.txt": b"1 2 60\n"})
    found = edges(EdgeList(path=folder, columns=TIMED), tmp_path / "s", "published_role")
    assert found == [(1, 2, "train"), (1, 2, "test")]


def test_equal_edges_are_repeats_unless_their_times_differ(tmp_path: Path) -> None:
    path = write(tmp_path / "g", {"e.txt": b"1 2\n1 3\n1 2\n"}) / "e.txt"
    with pytest.raises(DataError, match=r"e\.txt:3, .*'1, 2' repeats an earlier row"):
        ingest(EdgeList(path=path), tmp_path / "a")
    assert edges(EdgeList(path=path), tmp_path / "b", quarantine=True) == [(1, 2), (1, 3)]
    path.write_bytes(b"1 2 50\n1 2 60\n1 2 50\n")
    timed = EdgeList(path=path, columns=TIMED)
    assert len(edges(timed, tmp_path / "c", quarantine=True)) == 2


def test_a_test_pair_that_was_trained_on_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "g", {**SPLIT, "test.txt": b"0 5\n1 7 9\n"})
    with pytest.raises(DataError, match=r"test\.txt:2, .*'1, 9' repeats"):
        ingest(EdgeList(path=folder, format="adjacency"), tmp_path / "s")


def test_same_nodes_share_one_table(tmp_path: Path) -> None:
    path = write(tmp_path / "g", {"e.txt": b"1 2\n"}) / "e.txt"
    tables = [
        {feature.table_name for feature in EdgeList(path=path, same_nodes=same).schema.features}
        for same in (False, True)
    ]
    assert tables == [{"user_id", "item_id"}, {"node_id"}]


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        ({}, b"1 2\n3\n", r"g\.txt:2: 1 columns instead of 2 \(user, item\): '3'"),
        ({}, b"1 2\n1 2 3\n", r"g\.txt:2: 3 columns instead of 2"),
        ({}, b"1,2\n1,,3\n", r"g\.txt:2: 3 columns instead of 2"),
        ({}, b"1,2\n1,\n", r"g\.txt:2, column 'item_id': is null"),
        ({}, b"user,item\n1,2\n", r"g\.txt:1, column 'user_id': 'user' is not an integer"),
        ({}, b"1 2.5\n", r"g\.txt:1, column 'item_id': '2\.5' is not an integer"),
        ({}, b"1 2\n3 \xff\n", r"g\.txt:2: is not utf-8"),
        ({}, b"", r"g\.txt: the file is empty"),
        ({}, b"# nothing\n", "holds no events"),
        ({"columns": TIMED}, b"1 2 soon\n", r"g\.txt:1, column 'time': 'soon' is not a time"),
        ({"columns": TIMED}, b"1 2 1287532527000\n", r"column 'time': '1287532527000' may be mill"),
        ({"format": "adjacency"}, b"1 2\n2 3 x\n", r"g\.txt:2, column 'item_id': 'x' is not an"),
        ({"format": "adjacency"}, b"1 2\nlist\n", r"g\.txt:2, column 'user_id': 'list' is not an"),
    ],
)
def test_what_is_broken_is_named(
    tmp_path: Path, options: dict, content: bytes, message: str
) -> None:
    path = write(tmp_path / "g", {"g.txt": content}) / "g.txt"
    with pytest.raises(DataError, match=message) as caught:
        ingest(EdgeList(path=path, **options), tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_broken_lines_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "g", {"g.txt": b"1 2\nx 3\n4\n5 6 7\n8 9\n"}) / "g.txt"
    report = ingest(EdgeList(path=path), tmp_path / "s", quarantine=True)
    assert (report.events.read, report.events.stored, report.events.quarantined) == (5, 2, 3)
    aside = pq.read_table(tmp_path / "s" / "quarantine.parquet").to_pylist()
    assert sorted(row["line"] for row in aside) == [2, 3, 4]


def test_packed_files_and_folders_of_one_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "g", {"e.txt.gz": gzip.compress(b"1 2\n"), ".hidden": b"x"})
    for name, path in (("a", folder), ("b", folder / "e.txt.gz")):
        source = EdgeList(path=path)
        assert source.total_bytes is None  # of what will be read: it is known packed
        assert edges(source, tmp_path / name) == [(1, 2)]


def test_another_folder_is_named_with_what_it_holds(tmp_path: Path) -> None:
    folder = write(tmp_path / "g", {"train.txt": b"1 2\n", "notes.md": b"x"})
    with pytest.raises(DataError, match=r"no edge list: it has notes\.md, train\.txt; known: one"):
        ingest(EdgeList(path=folder), tmp_path / "s")
    with pytest.raises(DataError, match="does not exist"):
        ingest(EdgeList(path=tmp_path / "nowhere"), tmp_path / "s")


def test_the_fingerprint_follows_files_and_options_and_not_the_folder(tmp_path: Path) -> None:
    first = EdgeList(path=write(tmp_path / "a", SPLIT), format="adjacency")
    moved = EdgeList(path=write(tmp_path / "b", SPLIT), format="adjacency")
    assert first.fingerprint() == moved.fingerprint()
    changed = write(tmp_path / "c", {**SPLIT, "test.txt": b"1 7\n0 6\n"})
    prints = {
        first.fingerprint(),
        EdgeList(path=changed, format="adjacency").fingerprint(),
        first.model_copy(update={"ids": "string"}).fingerprint(),
        first.model_copy(update={"same_nodes": True}).fingerprint(),
    }
    assert len(prints) == 4


def test_options_are_checked() -> None:
    adapter: TypeAdapter = TypeAdapter(SourceConfig)
    good = {"source": "edge_list", "path": "x"}
    assert adapter.validate_python(good) == EdgeList(path=Path("x"))
    for wrong in (
        {"columns": ["user"]},
        {"columns": ["user", "item", "item"]},
        {"columns": ["user", "item", "weight"]},
        {"format": "adjacency", "columns": ["item", "user"]},
        {"format": "matrix"},
        {"unknown": 1},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python({**good, **wrong})


def test_gowalla(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    source = EdgeList(path=data_root("gowalla"), format="adjacency")
    report = ingest(source, tmp_path / "s")
    assert report.events.stored == 810_128 + 217_242 and report.reasons == {}
    table = pq.read_table(EventLog.open(tmp_path / "s").files)
    roles = {
        row["values"]: row["counts"] for row in table["published_role"].value_counts().to_pylist()
    }
    assert roles == {"train": 810_128, "test": 217_242}
    assert len(table["user_id"].unique()) == 29_858
    assert len(table["item_id"].unique()) == 40_981
    # the pairs are unique over both files, or the ingest had refused them: no overlap
    assert source.schema.unique == ("user_id", "item_id")


def test_hep_th(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    report = ingest(EdgeList(path=data_root("hep-th")), tmp_path / "s")
    assert report.events.stored == 352_807 and report.reasons == {}
    table = pq.read_table(EventLog.open(tmp_path / "s").files)
    papers = {*table["user_id"].to_pylist(), *table["item_id"].to_pylist()}
    assert len(papers) == 27_770
