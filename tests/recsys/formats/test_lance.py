"""Items in LanceDB answer as the bundle does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES, HISTORY
from feature_store.errors import DataError
from recsys.formats import lance
from recsys.formats.load import load
from recsys.formats.source import GeneratorSource, source_of
from recsys.serving.bundle import Bundle
from recsys.serving.golden import same_list

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


def test_a_table_holds_items_and_is_replaced(sasrec: Bundle, tmp_path: Path) -> None:
    into = f"lancedb:{tmp_path / 'db'}"
    for version in (1, 2):
        assert load(sasrec, into, "items").rows == 40
        table = lancedb.connect(tmp_path / "db").open_table("items")
        assert table.version == version
    record = sasrec.manifest.parts["generator"]
    assert json.loads(table.schema.metadata[b"recsys"])["space"] == record.space
    row = table.search().where("id = 'i05'").to_list()[0]
    assert row["title"] == "Item number 5" and len(row["vector"]) == 16
    assert [path.name for path in (tmp_path / "db").iterdir()] == ["items.lance"]


def test_the_function_of_the_page_answers_the_golden_requests(
    sasrec: Bundle, tmp_path: Path
) -> None:
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
        if "def nearest(table" in block
    )
    copied: dict[str, Any] = {}
    exec(code, copied)
    load(sasrec, f"lancedb:{tmp_path}", "items")
    table, source = lancedb.connect(tmp_path).open_table("items"), source_of(sasrec)
    assert isinstance(source, GeneratorSource)
    golden = pq.read_table(sasrec.part_file("generator", "golden.parquet")).to_pylist()
    vectors, _ = source.program(source.asked)
    for request, interests in zip(golden[:8], vectors.numpy(), strict=False):
        seen, ids = request[HISTORY], request[EXPECTED_ITEMS]
        listed, scores = zip(*copied["nearest"](table, interests, seen, k=len(ids)), strict=True)
        assert same_list(ids, request[EXPECTED_SCORES], [*listed], [*scores])


@pytest.mark.parametrize("options", [{"merge": "score"}, {"merge": "quota"}])
def test_several_interests_are_merged(
    options: dict[str, Any], bundled: Any, tmp_path: Path
) -> None:
    load(bundled("multi_interest", options), f"lancedb:{tmp_path}", "items")


def test_what_answers_otherwise_never_takes_the_place(
    sasrec: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into, real = f"lancedb:{tmp_path}", lance.items_table
    load(sasrec, into, "items")

    def mixed(source: Any) -> Any:
        table = real(source)
        return table.set_column(0, "id", table["id"].combine_chunks()[::-1])

    monkeypatch.setattr(lance, "items_table", mixed)
    with pytest.raises(DataError, match=r"the table 'items' was not kept.*golden request 0"):
        load(sasrec, into, "items")
    assert lancedb.connect(tmp_path).open_table("items").version == 1
    assert [path.name for path in tmp_path.iterdir()] == ["items.lance"]


def test_an_index_is_measured(sasrec: Bundle, tmp_path: Path) -> None:
    loaded = load(sasrec, f"lancedb:{tmp_path}", "items", hnsw=True)
    assert loaded.recall is not None and loaded.recall > 0.9
    (index,) = lancedb.connect(tmp_path).open_table("items").list_indices()
    assert index.columns == ["vector"]
    with pytest.raises(DataError, match=r"of the exact lists, less than --least-recall"):
        load(sasrec, f"lancedb:{tmp_path}", "other", hnsw=True, least_recall=1.1)
    assert [path.name for path in tmp_path.iterdir()] == ["items.lance"]


def test_what_is_not_ours_stays(sasrec: Bundle, tmp_path: Path) -> None:
    lancedb.connect(tmp_path).create_table("items", pa.table({"mine": [1]}))
    with pytest.raises(DataError, match=r"a table 'items' that this program did not load"):
        load(sasrec, f"lancedb:{tmp_path}", "items")
    assert lancedb.connect(tmp_path).open_table("items").to_arrow().to_pydict() == {"mine": [1]}
    with pytest.raises(DataError, match=r"--table is called '../items': names of LanceDB"):
        load(sasrec, f"lancedb:{tmp_path}", "../items")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"LanceDB at .*/file: "):
        load(sasrec, f"lancedb:{tmp_path / 'file'}", "items")


def test_ids_are_literals(tmp_path: Path) -> None:
    ids = ["it's", "'); --", "plain"]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0, 2, 0, 3, 0], pa.float32()), 2)
    table = lancedb.connect(tmp_path).create_table(
        "items", pa.table({"id": ids, "vector": vectors})
    )
    query = vectors[:1].flatten().to_numpy()[None]
    found, scores = lance.LanceItems(table).nearest(query, 3, ids[:2])
    assert found == ["plain"] and scores.tolist() == [[3.0]]
    assert lance.LanceItems(table).nearest(query, 3, ids)[0] == []
