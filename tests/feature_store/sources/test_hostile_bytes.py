"""Whatever stands in the files of any source: rows, bad rows, or an error of one line, and nothing
else. `HYPOTHESIS_PROFILE=explore` looks further."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from benchmarks.faults.hostile import FILES, HOSTILE, read
from feature_store.errors import DataError
from feature_store.sources import SOURCES, SourceConfig


def test_every_source_is_among_them_and_reads_what_is_fine(tmp_path: Path) -> None:
    assert FILES.keys() == SOURCES.keys() - {"fractal", "synthetic"}  # they read no text
    for name, files in FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        rows, bad = read(name, folder)
        assert rows >= 1 and bad == 0, name


@pytest.mark.parametrize("name", sorted(FILES))
@given(data=st.data())
@settings(max_examples=15)
def test_whatever_stands_there_is_read_or_told_in_a_line(name: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        for file, content in FILES[name].items():
            for _ in range(data.draw(st.integers(0, 2))):
                begin = data.draw(st.integers(0, len(content)))
                end = begin + data.draw(st.sampled_from([0, 0, 1, 3, 10_000]))
                content = content[:begin] + data.draw(st.sampled_from(HOSTILE)) + content[end:]
            (folder / file).write_bytes(content)
        try:
            read(name, folder)
        except DataError as error:
            assert "\n" not in str(error)


def test_names_in_archives_lead_nowhere(tmp_path: Path) -> None:
    """Members are read where they are, and never written."""
    archive = tmp_path / "raw" / "edges.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for file, content in FILES["edge_list"].items():
            packed.writestr(f"../../{file}", content)
        packed.writestr("/etc/train.txt", b"6 6\n")
    source = TypeAdapter(SourceConfig).validate_python({"source": "edge_list", "path": archive})
    assert sum(chunk.num_rows for chunk in source.read_events()) == 1  # what `..` holds is no data
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["edges.zip", "raw"]
