"""Ids without a vocabulary: the same examples with keys in rows' place, and no list of ids."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, check_keyed, write_examples
from feature_store.hashing import CODE_OF_ZERO, codes_of, keys_of, keys_of_codes
from feature_store.labels import NegativesConfig
from feature_store.protocols import LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from feature_store.vocabulary import Keys, Vocabulary

KEYED = ("u", "device", "town")
ROWS = {  # by the type of users' ids
    "int64": RowsOf(),
    "string": RowsOf(per="event", labels=True),
}


def schema_of(users: str) -> Schema:
    return Schema(
        user="u",
        item="i",
        features=(
            Feature(name="u", kind="id", side="user", dtype=users),  # type: ignore[arg-type]
            Feature(name="town", kind="id", side="user"),
            Feature(name="i", kind="id", side="item"),
            Feature(name="maker", kind="id", side="item", dtype="int64"),
            Feature(name="tags", kind="bag", side="item"),
            Feature(name="device", kind="id", side="context"),
        ),
    )


def raw(user: int, users: str) -> int | str:
    return user if users == "int64" else f"user {user}"


@pytest.fixture(scope="module", params=["int64", "string"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folders of examples with vocabularies and without: of sequences, where ids are integers, and
    of labelled rows with drawn ones, where they are strings."""
    users, folder = request.param, tmp_path_factory.mktemp(request.param)
    log = EventLog.create(folder / "log", schema_of(users))
    rng, day = np.random.default_rng(1), datetime(2024, 1, 1)
    events = [
        (raw(user, users), f"i{rng.integers(9)}", day + timedelta(hours=n), device)
        for n, (user, device) in enumerate(
            (user, ["phone", None, "desk"][int(rng.integers(3))]) for user in [0, 5, -3, 12] * 6
        )
    ]
    names = log.schema.events_schema().names
    log.append(pa.table(dict(zip(names, zip(*events, strict=True), strict=True))))
    catalogue = Catalogue(log.folder, log.schema)
    catalogue.write("user", pa.table({"u": [raw(n, users) for n in (12, 0)], "town": ["a", "b"]}))
    rows_of, ways = ROWS[users], {"listed": (), "keyed": KEYED}
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, LeaveOneOut())
        for name, keyed in ways.items():
            write_examples(
                engine,
                split,
                catalogue,
                folder / name,
                rows_of=rows_of,
                negatives=NegativesConfig() if rows_of.labels else None,
                keyed=keyed,
            )
    return folder / "listed", folder / "keyed"


def known(folder: Path, table: str) -> Vocabulary:
    return Vocabulary.load(folder / "vocabulary" / f"{table}.arrow")


def test_rows_are_those_of_a_vocabulary_with_codes_in_its_place(
    written: tuple[Path, Path],
) -> None:
    """In the same order, with the same drawn negatives, whatever the type of ids."""
    listed, keyed = written
    for role in ("train", "validation", "test"):
        one, other = (pq.read_table(f / f"{role}.parquet") for f in (listed, keyed))
        assert one.num_rows > 0
        for name in one.column_names:
            if name not in KEYED:
                assert other[name].equals(one[name]), (role, name)
                continue
            ids = known(listed, name).decode(one[name].to_numpy())
            assert other[name].to_numpy().tolist() == codes_of(ids).tolist()
            assert not isinstance(known(listed, name), Keys)
    for file in ("items", "serving"):
        one, other = (pq.read_table(f / f"{file}.parquet") for f in (listed, keyed))
        assert other.equals(one)
    one, other = (pq.read_table(f / "interactions.parquet") for f in (listed, keyed))
    assert other.select(one.column_names).cast(one.schema).equals(one)


def test_nothing_lists_the_ids(written: tuple[Path, Path]) -> None:
    _, keyed = written
    for table in KEYED:
        of_table = known(keyed, table)
        assert isinstance(of_table, Keys)
        with pytest.raises(ConfigError, match=rf"embeddings\.tables\.{table}\.vocabulary = 'none'"):
            len(of_table)
        with pytest.raises(ConfigError, match="set vocabulary = 'log'"):
            of_table.values  # noqa: B018 (raises)
    assert pq.read_table(keyed / "users.parquet").num_rows == 1 + 2  # of the catalogue
    raw_columns = [n for n in pq.read_schema(_file(keyed, "train")).names if n.startswith("raw#")]
    assert raw_columns == []


def _file(folder: Path, role: str) -> Path:
    return next((folder / f"{role}.parquet").glob("*.parquet"))


def test_raw_strings_of_what_is_asked_lie_beside_their_codes(written: tuple[Path, Path]) -> None:
    test = pq.read_table(written[1] / "test.parquet")
    raw_columns = {n.removeprefix("raw#") for n in test.column_names if n.startswith("raw#")}
    assert raw_columns in ({"town"}, {"u", "device", "town"})  # sequences read no device
    for name in raw_columns:
        codes = codes_of(test[f"raw#{name}"])
        assert codes.tolist() == test[name].to_pylist()
        assert codes.any()


def test_every_id_has_a_code_of_its_own_and_null_has_none() -> None:
    ids = pa.array([0, None, 1, -1, 2**63 - 1])
    codes = codes_of(ids)
    assert codes.tolist() == [CODE_OF_ZERO, 0, 1, -1, 2**63 - 1]
    assert keys_of_codes(codes[[0, 2, 3, 4]]).tolist() == [0, 1, -1, 2**63 - 1]
    assert Keys(pa.int64()).decode(codes).equals(ids)
    texts = pa.array(["", "b", None])
    assert codes_of(texts).tolist() == [*keys_of(texts.drop_null()).tolist(), 0]
    assert Keys(pa.string()).decode(codes_of(texts)).null_count == 3  # nobody kept them
    with pytest.raises(ValueError, match="is not an integer"):
        Keys(pa.int64()).encode(pa.array(["x"]))


def test_keys_are_written_and_read(tmp_path: Path) -> None:
    Keys(pa.string(), "shop").save(tmp_path / "shop.arrow")
    found = Vocabulary.load(tmp_path / "shop.arrow")
    assert isinstance(found, Keys)
    assert found.type == pa.string()
    assert found.continues(Keys(pa.string()))
    assert not found.continues(Keys(pa.int64()))
    assert not found.continues(Vocabulary(pa.array(["a"])))
    assert not Vocabulary(pa.array(["a"])).continues(found)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("i", "the ids of i are ranked, counted and answered"),
        ("tags", "the ids of tags come in bags"),
        ("shoe", "the log has no ids of that table; there are: device, i, maker, tags, town, u"),
    ],
)
def test_what_needs_rows_is_told_so(table: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"embeddings\.tables\.{table}\.vocabulary.*{said}"):
        check_keyed(schema_of("int64"), (table,))
