"""The page of a tracked run, as it is printed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import pytest

from pipelines.tracked_page import tell_page
from recsys.tracking import Tracker


def tracker_of(uri: str, lost: Sequence[str] = ()) -> Tracker:
    tracker = Tracker(uri)
    tracker.run_id, tracker._experiment_id = "ab", "3"
    tracker._lost += lost
    return tracker


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://tracking.example:5000/", "http://tracking.example:5000/#/experiments/3/runs/ab"),
        (
            "sqlite:////data/my runs/mlflow.db",
            "`mlflow ui --backend-store-uri 'sqlite:////data/my runs/mlflow.db'`, then "
            "http://127.0.0.1:5000/#/experiments/3/runs/ab",
        ),
    ],
)
def test_a_run_is_told_by_its_own_address(
    uri: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    tell_page(tracker_of(uri))
    assert capsys.readouterr().err == f"MLflow: {told}\n"


def test_of_a_run_that_was_not_tracked_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tell_page(Tracker("sqlite:///mlflow.db"))
    tell_page(tracker_of("sqlite:///mlflow.db", lost=["metrics"]))
    assert capsys.readouterr() == ("", "")
