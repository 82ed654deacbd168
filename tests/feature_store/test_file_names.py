"""Names of people's data stay files of the folder that they were meant for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.file_names import file_name, original_name
from recsys.runs.folder import RunFolder


@pytest.mark.parametrize("name", ["als", "ALS 2", "日本", "price (€)", "a.b"])
def test_most_names_are_their_files(name: str) -> None:
    assert file_name(name) == name


@given(st.text(alphabet="ab./\\%\x00\n2F日") | st.text())
def test_a_name_comes_back_and_leads_nowhere_else(name: str) -> None:
    file = file_name(name)
    assert original_name(file) == name
    assert not {"/", "\\", "\x00"} & set(file) and not file.startswith(".")


@pytest.mark.parametrize("name", ["../../z", "/tmp/z", "team/als", "..", ".hidden"])
def test_lists_and_predictions_stay_in_the_folder_of_their_run(name: str) -> None:
    run = RunFolder(Path("/runs/mine"))
    assert run.lists_of(name).parent == run.lists
    assert run.predictions_of(name).parent == run.predictions
    assert run.lists_of(name).suffix == ".parquet"
