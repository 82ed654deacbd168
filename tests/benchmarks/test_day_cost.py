"""The benchmark of a day's cost, over small logs: what is read follows histories, not users."""

from __future__ import annotations

import json

import pytest

from benchmarks import day_cost


def test_users_who_do_not_come_are_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(day_cost, "COMING", 20)
    monkeypatch.setattr(day_cost, "OF_DAY", 60)
    day_cost.main(["--events", "1000"])
    logs = json.loads(capsys.readouterr().out)["logs"]
    once, users, history = (logs[name] for name in logs)
    assert once["events"] == 1180 and users["events"] == history["events"] == 10_180
    assert users["read"] < 1.5 * once["read"] < 0.6 * history["read"]
