"""The house stays in order: what `tests/house.py` counts, held to its goals."""

from __future__ import annotations

from house import ROOT, empty_names, foreign_private_writes, product_files


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
