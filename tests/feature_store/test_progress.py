"""Work that lasts is told in lines where there is no terminal; work that is soon done is not."""

from __future__ import annotations

import time

import pytest

from feature_store import progress
from feature_store.progress import Ticks, bar, in_words, stage


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7_500, "2 h 5 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_stage_that_lasts_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.05)
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    told: list[str] = []
    with stage("fit", tell=told.append):
        time.sleep(0.14)
    assert told == ["fit: 0 s so far"] * 2
    with stage("fit", about=0.04, tell=told.append):  # soon done, and it is
        pass
    assert len(told) == 2


def test_a_stage_that_will_last_is_told_before_it_begins() -> None:
    told: list[str] = []
    with stage("fit ease", about=470, tell=told.append):
        assert told == ["fit ease: about 7 min 50 s"]
    assert len(told) == 1


def test_the_stage_of_what_fails_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.02)
    told: list[str] = []
    with pytest.raises(KeyError), stage("fit", tell=told.append):
        raise KeyError
    time.sleep(0.05)
    assert told == []


def test_ticks_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the speed since the first call, which may be in the midst of the work."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    told: list[str] = []
    ticks = Ticks("train", told.append)
    for seconds, done in ((0, 40), (10, 50), (40, 80), (50, 85), (100, 120)):
        clock[0] = 1000.0 + seconds
        ticks(done, 200, f" (step {done})")
    assert told == ["train: 40%, 2 min left (step 80)", "train: 60%, 1 min 40 s left (step 120)"]
    clock[0] = 1200.0
    ticks(150, None)
    assert told[-1] == "train: 150"


def test_a_bar_without_a_terminal_is_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with bar("ingest", total_bytes=1_000) as update:
        update(5, 250)
    assert capsys.readouterr().err == "ingest: 25%, 0 s left (5 rows)\n"
    monkeypatch.setenv("RANK", "1")
    with bar("ingest", total_rows=10) as update:
        update(5, 0)
    assert capsys.readouterr().err == ""
