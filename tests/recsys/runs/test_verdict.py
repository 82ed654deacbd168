"""Whether a model beats its baselines, on planted figures of users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config import parse_config
from recsys.config.run_config import RunConfig
from recsys.runs.folder import RunFolder
from recsys.runs.verdict import advice, earns_alias, sentence, verdict

USERS = 60


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return parse_config(
        {
            "name": "small",
            "output": str(tmp_path),
            "data": {"source": "synthetic"},
            "retriever": {"name": "sasrec"},
            "evaluation": {"replicates": 100},
        }
    )


def judged(config: RunConfig, **figures: Any) -> dict[str, Any]:
    """The verdict on a model and its baselines, each with the figure of every user."""
    files = RunFolder(config.folder)
    files.lists.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(1).permutation(USERS)
    for place, (name, values) in enumerate(figures.items()):
        users = order if place else np.arange(USERS)  # not all in the same order
        column = np.broadcast_to(values, USERS)[users]
        table = pa.table({"user": [f"u{user:02d}" for user in users], "NDCG@10": column})
        pq.write_table(table, files.lists_of(name))
    model, *baselines = figures
    found = verdict(config, files, model, baselines)
    assert found is not None
    json.dumps(found, allow_nan=False)
    return found


def test_a_model_above_all_baselines_beats_them(config: RunConfig) -> None:
    better = np.where(np.arange(USERS) % 2, 0.5, 0.3)
    found = judged(config, sasrec=better, ease=0.25, popularity=0.1)
    assert found["beats_baselines"] and earns_alias({"verdict": found})
    assert found["best_baseline"] == "ease" and found["users"] == USERS
    assert found["value"] == pytest.approx(0.4)
    assert found["against"]["ease"]["difference"] == pytest.approx(0.15)
    assert sentence("sasrec", found).startswith(
        "sasrec beats its baselines; the best of them is ease: NDCG@10 0.4000 against 0.2500, a "
        "difference of +0.1500 (95 % +0.1"
    )
    assert advice(config, RunFolder(config.folder), found) == []


def test_a_model_below_a_baseline_loses_to_it(config: RunConfig) -> None:
    found = judged(config, sasrec=0.01, popularity=np.where(np.arange(USERS) % 3, 0.02, 0.03))
    assert not found["beats_baselines"] and not earns_alias({"verdict": found})
    assert found["against"]["popularity"]["p"] == pytest.approx(1 / 10_001)
    assert sentence("sasrec", found).startswith(
        "sasrec loses to popularity: NDCG@10 0.0100 against"
    )
    files = RunFolder(config.folder)
    assert advice(config, files, found) == [
        f"which model suits this log: recsys tune {files.path} "
        '\'tune.retrievers=["popularity", "sasrec"]\''
    ]
    for best, history, tried in ((1, 6, "the first epoch"), (6, 6, "the last epoch")):
        record = {"best_epoch": best, "history": [{}] * history}
        files.training_record.write_text(json.dumps(record))
        assert advice(config, files, found)[1].startswith(f"{tried} was the best")


def test_a_difference_that_may_be_chance_is_none(config: RunConfig) -> None:
    """Half of the users gain what the other half loses, and one gains a little more."""
    swing = np.where(np.arange(USERS) % 2, 0.4, 0.2)
    swing[0] = 0.25
    found = judged(config, sasrec=swing, ease=0.3, popularity=0.01)
    assert found["against"]["ease"]["difference"] > 0 and not found["beats_baselines"]
    assert found["against"]["ease"]["p_holm"] > 0.5 > found["against"]["popularity"]["p_holm"]
    assert sentence("sasrec", found).startswith(
        "sasrec is not shown to beat ease; the best baseline is ease: "
    )


def test_without_baselines_there_is_no_verdict(config: RunConfig) -> None:
    assert verdict(config, RunFolder(config.folder), "sasrec", []) is None
    assert earns_alias({})
