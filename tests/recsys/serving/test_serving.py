"""Bundle, index and recommender: what is served is what was evaluated."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from served import Served

from conformance import learn, small
from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from planted import Shape, raw_requests
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.embeddings.options import QuantisationConfig
from recsys.export.bundle import versions
from recsys.serving.index.faiss import FaissIndex
from recsys.serving.index.kinds import recall_against_exact
from recsys.serving.index.options import FaissConfig

TESTS = Path(__file__).resolve().parents[1]


def test_another_process_serves_what_was_evaluated_without_the_training_stack(
    two_tower: Served, tmp_path: Path
) -> None:
    raw_requests(two_tower.examples).to_parquet(tmp_path / "requests.parquet")
    program = [str(TESTS / "workers" / "serve.py"), str(two_tower.bundle)]
    done = subprocess.run(
        [sys.executable, *program, str(tmp_path / "requests.parquet"), str(tmp_path / "answers")],
        env={**os.environ, "PYTHONPATH": str(TESTS.parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    answers = pd.read_parquet(tmp_path / "answers").groupby("user")["item"].agg(list)
    assert set(answers.index) == set(two_tower.recommended)
    equal = [answers[user] == found for user, found in two_tower.recommended.items()]
    assert np.mean(equal) > 0.97  # scores that are all but equal may change places


@pytest.mark.parametrize("dtype", ["fp16", "int8", "int4"])
def test_quantised_tables_recommend_nearly_the_same(
    sasrec: Served, tmp_path: Path, dtype: Any
) -> None:
    config = QuantisationConfig(dtype=dtype, max_error=0.2, max_loss=0.05)
    bundle = sasrec.export(tmp_path / "bundle", quantisation=config)
    record, embeddings = bundle.generator.record.quantisation, bundle.generator.record.embeddings
    assert record is not None and embeddings is not None
    assert record.tables["item_id"].dtype == dtype and record.metric == "Recall@100"
    assert embeddings["tables"][0]["rows"] == 43
    expected = {"fp16": 43 * 16 * 2, "int8": 43 * (16 + 8), "int4": 43 * (8 + 4)}[dtype]
    assert record.bytes == expected and record.fp32_bytes == 43 * 16 * 4
    requests = raw_requests(sasrec.examples)
    lists = [
        one.recommend(requests=requests, k=1).set_index("user")["item"]
        for one in (bundle, sasrec.recommender)
    ]
    assert (lists[0] == lists[1]).mean() >= {"fp16": 0.95, "int8": 0.95, "int4": 0.7}[dtype]


def test_a_gate_that_lets_nothing_through_leaves_float32(sasrec: Served, tmp_path: Path) -> None:
    config = QuantisationConfig(dtype="int4", max_error=1e-9)
    bundle = sasrec.export(tmp_path / "bundle", quantisation=config)
    assert bundle.generator.record.quantisation is not None
    table = bundle.generator.record.quantisation.tables["item_id"]
    assert (table.requested, table.dtype) == ("int4", "fp32")
    assert (table.reason or "").startswith("fp16 has a relative error of 0.000")


def test_a_model_without_tables_cannot_be_quantised(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path: Path
) -> None:
    with join("cpu") as group:
        ease = learn(small("ease"), planted["sequences"], tmp_path, group)
    served = Served(ease, planted["sequences"], planted_log, None, {})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="this model has no embedding tables"):
        served.export(tmp_path / "bundle", quantisation=QuantisationConfig(dtype="int8"))
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_with_a_faiss_index_answers_alike(sasrec: Served, tmp_path: Path) -> None:
    recommender = sasrec.export(tmp_path / "bundle", FaissConfig())
    assert isinstance(recommender.generator.index, FaissIndex)
    assert recommender.generator.record.index.recall_at_100 >= 0.95
    requests = raw_requests(sasrec.examples)
    pd.testing.assert_frame_equal(
        recommender.recommend(requests=requests, k=5),
        sasrec.recommender.recommend(requests=requests, k=5),
        atol=1e-5,
    )


def test_an_index_that_misses_its_target_is_not_exported(
    sasrec: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of 40 items the first 100 would be all of them
    measure = partial(recall_against_exact, k=5)
    monkeypatch.setattr("recsys.export.generator.recall_against_exact", measure)
    index = FaissConfig(factory="IVF8,Flat", recall_target=0.9)
    with pytest.raises(DataError, match=r"IVF8,Flat finds 0\.\d+ of the exact.*recall_target"):
        sasrec.export(tmp_path / "bundle", index)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_the_folder_that_nobody_installed_exports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert versions() == {"recsys": "not installed", "torch": "not installed"}
