"""Items as Parquet, and the command that writes formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import ConfigError, DataError
from pipelines.cli import main
from pipelines.cli.converting import To
from recsys.formats import parquet
from recsys.formats.convert import FORMATS, convert
from recsys.formats.extras import needed
from recsys.formats.source import source_of
from recsys.serving.bundle import Bundle


def test_items_bring_vectors_and_what_people_read(sasrec: Bundle, tmp_path: Path) -> None:
    convert(sasrec, ["parquet"], tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    assert table.column_names == ["id", "vector", "genre", "words", "list_price", "title", "blurb"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 16)
    told = json.loads(table.schema.metadata[b"recsys"])
    record = sasrec.manifest.parts["generator"]
    assert (told["space"], told["width"], told["metric"]) == (record.space, 16, "inner_product")
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["i05"]["title"] == "Item number 5" and rows["i05"]["genre"] == "g1"
    assert rows["i03"]["title"] is None and rows["i04"]["words"] == ["w4"]
    items = np.load(sasrec.part_file("generator", "items.npy"))
    np.testing.assert_array_equal(np.array(table.column("vector").to_pylist(), "f4"), items)


def test_where_all_items_are_scored_their_places_stand_there(bundled: Any, tmp_path: Path) -> None:
    bundle = bundled("ease")
    convert(bundle, ["parquet"], tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    rows = np.load(bundle.part_file("generator", "items.npy"))
    assert table.column("row").to_pylist() == rows.tolist() and "vector" not in table.column_names


def test_a_column_of_the_catalogue_may_be_called_as_ours(
    sasrec: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sasrec.catalogue
    assert path is not None
    table = pq.read_table(path).rename_columns({"genre": "vector", "words": "vector_"})
    pq.write_table(table, tmp_path / "catalogue.parquet")
    monkeypatch.setitem(vars(sasrec), "catalogue", tmp_path / "catalogue.parquet")
    convert(sasrec, ["parquet"], tmp_path / "out")
    names = pq.read_table(tmp_path / "out" / "items.parquet").column_names
    assert names == ["id", "vector", "vector_", "vector__", "list_price", "title", "blurb"]


def test_a_file_with_other_vectors_is_not_kept(
    sasrec: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parquet.items_table

    def mixed(source: Any) -> pa.Table:
        table = real(source)
        return table.set_column(0, "id", pa.chunked_array([table["id"].combine_chunks()[::-1]]))

    monkeypatch.setattr(parquet, "items_table", mixed)
    with pytest.raises(DataError, match=r"the file of items was not kept.*golden request 0"):
        convert(sasrec, ["parquet"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_ranker_has_no_items(bundled: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the ranker ranker of .* has no items"):
        convert(bundled("dcn"), ["parquet"], tmp_path / "out")


def test_a_folder_of_something_else_stays_as_it_is(sasrec: Bundle, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds something that is no conversion"):
        convert(sasrec, ["parquet"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    for _ in range(2):  # an earlier conversion is replaced
        convert(sasrec, ["parquet"], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no format is called 'csv'; there are: onnx, aot"):
        convert(sasrec, ["csv"], tmp_path / "out")


def test_a_cascade_is_converted_stage_by_stage(sasrec: Bundle, monkeypatch: Any) -> None:
    from recsys.serving.manifest import CascadeRecord

    cascade = CascadeRecord.model_construct(kind="cascade")
    parts = {**sasrec.manifest.parts, "cascade": cascade}
    bundle = Bundle(sasrec.folder, sasrec.manifest.model_copy(update={"parts": parts}))
    assert source_of(bundle).name == source_of(bundle, "generator").name == "generator"
    with pytest.raises(DataError, match=r"cascade is a cascade.*--part generator"):
        source_of(bundle, "cascade")
    with pytest.raises(DataError, match=r"has no generator called 'fine'"):
        source_of(bundle, "fine")


def test_the_command_tells_what_it_wrote(
    sasrec: Bundle, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sasrec.folder, run / "bundle")
    words = ["recsys", "bundle", "convert", str(run), "--to", "parquet", "--out", str(run / "o")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and "the generator generator (planted)" in capsys.readouterr().out
    assert {path.name for path in (run / "o").iterdir()} == {
        *("about.json", "golden.parquet", "items.parquet", "vocabulary")
    }


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"a program needs onnx_that.*'recsys\[formats\]'"):
        needed("onnx_that_nobody_has", "a program")


def test_the_command_offers_every_format() -> None:
    assert {choice.value for choice in To} == {*FORMATS}
