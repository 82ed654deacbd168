"""Examples are there or are written again, and ids that were trained on keep their rows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store import durable
from feature_store.errors import DataError
from feature_store.ingest import ingest
from feature_store.vocabulary import Vocabulary
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.model import Model
from recsys.runs.fit import fit
from recsys.runs.folder import MAIN_PHASE, PhaseFolder, RunFolder
from recsys.runs.learnt import learnt_model
from recsys.runs.prepare import prepare
from recsys.runs.work import working_on


def write_log(path: Path, items: range) -> None:
    start = datetime(2024, 1, 1)
    rows = [
        (f"u{user:02d}", f"i{items[(user + 3 * n) % len(items)]:02d}", start + timedelta(hours=n))
        for user in range(30)
        for n in range(6)
    ]
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_parquet(path)


def config_of(root: Path) -> RunConfig:
    return parse_config(
        {
            "name": "small",
            "output": str(root / "runs"),
            "data": {
                "source": "parquet",
                "path": str(root / "log" / "*.parquet"),
                "columns": {"user": "user", "item": "item", "time": "time"},
            },
            "split": {"protocol": "leave_one_out"},
            "retriever": {"name": "sasrec", "width": 8, "blocks": 1, "max_length": 10},
            "reader": {"batch_size": 32},
            "trainer": {"epochs": 1, "device": "cpu"},
            "evaluation": {"ks": [10]},
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items 10 to 29 are trained on; then a log with items 0 to 9, which sort before them."""
    root = tmp_path_factory.mktemp("root")
    (root / "log").mkdir()
    write_log(root / "log" / "1.parquet", range(10, 30))
    config = config_of(root)
    ingest(config.data, config.store_folder)
    with working_on(config) as work, work.tracked() as tracker:
        fit(work, tracker)
    write_log(root / "log" / "2.parquet", range(10))
    return root


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> tuple[RunConfig, PhaseFolder]:
    root = Path(shutil.copytree(trained, tmp_path / "root"))
    config = config_of(root)
    ingest(config.data, config.store_folder, replace=True)
    return config, RunFolder(config.folder).phase(MAIN_PHASE)


def items(files: PhaseFolder) -> list[str]:
    path = files.examples / "vocabulary" / "item.arrow"
    found: list[str] = Vocabulary.load(path).values.to_pylist()
    return found


def loaded(config: RunConfig, files: PhaseFolder) -> Model:
    """The checkpoint in a model of the log as it is now, as whoever goes on from it has it."""
    return learnt_model(config, prepare(config), files.checkpoints)


KNOWN, NEW = [f"i{n}" for n in range(10, 30)], [f"i{n:02d}" for n in range(10)]


def lost(files: PhaseFolder) -> None:
    shutil.rmtree(files.examples)


def moved(files: PhaseFolder) -> None:
    """What a kill between the two renames of a replacement leaves."""
    files.examples.rename(files.examples.with_name(".examples.replaced-0123456789ab"))


def of_another_order(files: PhaseFolder) -> None:
    path = files.examples / "vocabulary" / "item.arrow"
    Vocabulary(Vocabulary.load(path).values[::-1]).save(path)


def ids_moved(files: PhaseFolder) -> None:
    files.known_ids.rename(files.known_ids.with_name(".vocabulary.replaced-0123456789ab"))
    lost(files)


@pytest.mark.parametrize("happens", [lost, moved, of_another_order, ids_moved])
def test_a_checkpoint_keeps_its_ids_whatever_becomes_of_the_examples(
    run: tuple[RunConfig, PhaseFolder], happens: Callable[[PhaseFolder], None]
) -> None:
    config, files = run
    happens(files)
    model = loaded(config, files)  # else: of another model, train anew
    assert items(files) == KNOWN + NEW
    assert model.embeddings.layout.features["item"].rows == 31  # type: ignore[attr-defined]


def test_a_kill_at_any_rename_keeps_the_ids(
    run: tuple[RunConfig, PhaseFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of a log that has grown are put in place by two renames."""
    config, files = run
    renames = []

    def killed(*paths: Any) -> None:
        renames.append(paths)
        if len(renames) == 2:
            raise KeyboardInterrupt
        os.replace(*paths)

    monkeypatch.setattr(durable.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.undo()
    assert len(renames) == 2 and not files.examples.exists()
    loaded(config, files)
    assert items(files) == KNOWN + NEW


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("made_from.json", text) for text in ("", "{", "[]", "null", None)),
        *(("examples.json", text) for text in ("{", "{}", None)),
    ],
)
def test_half_a_marker_means_to_write_the_examples_again(
    run: tuple[RunConfig, PhaseFolder], name: str, text: str | None
) -> None:
    config, files = run
    prepare(config)
    marker = files.examples / name
    whole, before = marker.read_text(), (files.examples / "items.parquet").stat().st_ino
    prepare(config)
    assert (files.examples / "items.parquet").stat().st_ino == before  # nothing to do
    marker.unlink() if text is None else marker.write_text(text)
    if name == "examples.json":
        with pytest.raises(DataError, match=r"examples\.json is no record of examples .*remove"):
            Examples(files.examples)
    loaded(config, files)
    assert json.loads(marker.read_text()) == json.loads(whole)
    assert (files.examples / "items.parquet").stat().st_ino != before
    assert items(files) == KNOWN + NEW


def test_a_fresh_training_numbers_all_ids_anew(run: tuple[RunConfig, PhaseFolder]) -> None:
    config, files = run
    with working_on(config) as work, work.tracked() as tracker:
        fit(work, tracker, fresh=True)
    assert items(files) == NEW + KNOWN
    assert Vocabulary.load(files.known_ids / "item.arrow").values.to_pylist() == NEW + KNOWN
