"""The house stays in order: what `tests/house.py` counts, held to its goals."""

from __future__ import annotations

import ast

import pytest
from house import (
    ROOT,
    _unsafe,
    clocks_that_jump,
    empty_names,
    foreign_private_writes,
    product_files,
    unsafe_reads,
)


def test_no_variable_of_a_longer_function_is_called_anything() -> None:
    assert empty_names() == []


def test_no_private_attribute_of_another_object_is_written() -> None:
    assert foreign_private_writes() == []


def test_few_modules_stand_loose() -> None:
    loose = [path.name for path in (ROOT / "recsys").glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= 7, loose


def test_files_of_tests_have_names_of_their_own() -> None:
    """Pytest imports them by their names alone, and leaves out the second of two, with an error."""
    own = ("conftest.py", "__init__.py")
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in own]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_programs_are_short() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in product_files("pipelines")}
    assert {path.name: count for path, count in lines.items() if count >= 100} == {}


def test_parquet_is_read_where_its_checksums_are_verified() -> None:
    doors = ("pq.read_table(", "pq.ParquetFile(", "pd.read_parquet(", "ds.dataset(")
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in product_files()
        if any(door in path.read_text() for door in doors)
    }
    assert readers == {"feature_store/parquet.py"}


def test_nothing_is_timed_by_a_clock_that_jumps() -> None:
    assert clocks_that_jump() == []


def test_no_file_says_what_is_run() -> None:
    assert unsafe_reads() == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_what_would_run_it_is_noticed(code: str) -> None:
    assert any(_unsafe(node) for node in ast.walk(ast.parse(code)))
    fine = "torch.load(path, weights_only=True); np.load(path); model.eval(); json.loads(text)"
    assert not any(_unsafe(node) for node in ast.walk(ast.parse(fine)))
