"""A process that dies is named by those that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.errors import DataError
from recsys.members import Member, naming_the_lost

TESTS = Path(__file__).parent


def test_who_was_killed_is_named_with_the_way_to_go_on() -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "workers" / "lose.py"],
        env={**os.environ, "PYTHONPATH": str(TESTS.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    killed = done.stdout.split()[0]
    assert done.returncode == 1
    assert done.stderr.startswith(f"rank 1 (process {killed} on ")
    assert "has ended, so that rank 0 of 2 cannot go on" in done.stderr
    assert "--resume" in done.stderr and "Traceback" not in done.stderr


def test_of_another_host_it_is_said_that_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.members._PATIENCE", 0)
    members = [Member.here(), Member("elsewhere", os.getpid())]
    words = r"a host that this one does not see.*--resume"
    with pytest.raises(DataError, match=words), naming_the_lost(0, members):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer")


def test_other_faults_stay_what_they_are() -> None:
    members = [Member.here(), Member.here()]
    with pytest.raises(RuntimeError, match="sizes do not match"), naming_the_lost(0, members):
        raise RuntimeError("sizes do not match")
