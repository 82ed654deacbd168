"""The steps that are measured as logs grow, on a log of a thousand events."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.examples import generate
from benchmarks.ingest import STEPS, do, measured, tree
from benchmarks.peers.ingest_by_hand import by_pandas

USERS = 50
GROWS = """
import subprocess, sys
mine = bytearray(30 << 20)
subprocess.run([sys.executable, "-c", "b = bytearray(50 << 20); import time; time.sleep(0.2)"])
print('{"rows": 1}')
"""


def test_every_event_goes_through_all_steps_and_by_hand_into_the_same_lists(
    tmp_path: Path,
) -> None:
    generate(tmp_path / f"log-{USERS}", USERS)
    told = tree(tmp_path, USERS, None, 0)
    rows = {step: do(step, told) for step in STEPS}
    assert rows["ingest"] == rows["examples"] > 3 * USERS
    (tmp_path / "out").mkdir()
    by_pandas(tmp_path / f"log-{USERS}", tmp_path / "out")
    ours = pd.read_parquet(tmp_path / str(USERS) / "run" / "examples" / "train.parquet")
    theirs = pd.read_parquet(tmp_path / "out" / "train.parquet")
    assert len(pd.read_parquet(tmp_path / "out" / "log.parquet")) == rows["ingest"]
    lists = [tuple(items) for items in theirs["item_id"] if len(items) > 1]  # to learn from
    assert sorted(map(tuple, ours["history"])) == sorted(lists)
    assert rows["read"] == len(lists) < USERS == len(theirs)


def test_memory_is_that_of_all_processes_and_has_a_limit() -> None:
    told = measured([sys.executable, "-c", GROWS], limit=1e9)
    assert told is not None and told["rows"] == 1
    assert told["peak_gb"] == pytest.approx(0.1, abs=0.03)
    assert measured([sys.executable, "-c", GROWS], limit=60e6) is None
    assert measured([sys.executable, "-c", "raise SystemExit(3)"], limit=1e9) is None
