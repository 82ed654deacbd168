"""Answers of what users did until now: events that a store takes are asked with at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked import serving

from feature_store.schema import Schema

open_store = pytest.importorskip("recsys.online.places").open_store
Rules = pytest.importorskip("recsys.online.rules").Rules
WHEN = "2026-11-30T12:00:00Z"


@pytest.mark.parametrize("again", [1, 2])
def test_what_a_user_did_is_known_at_once_and_once(
    folder: Path, tmp_path: Path, again: int
) -> None:
    """Somebody who was unknown is answered as whoever brings that history; an event that comes
    twice, as after an answer that got lost, is there once."""
    rules = Rules(log=Schema.load(folder / "schema.json"))
    store = open_store(f"sqlite:///{tmp_path}/users.db", rules)
    event = {"user": 7, "time": WHEN, "event_type": "click"}
    events = [{**event, "item": "i00"}, {**event, "item": "i07", "time": "2026-11-30T12:00:01Z"}]
    with serving(folder, users=store) as asking:
        assert asking.post("/recommend", {"user": 7}).json()["answers"][0]["fallback"]
        added = [asking.post("/events", {"events": events}).json() for _ in range(again)]
        assert added[0] == {"received": 2, "new": 2}
        assert added[1:] == [{"received": 2, "new": 0}] * (again - 1)
        (known,) = asking.post("/recommend", {"user": 7}).json()["answers"]
        (same,) = asking.post("/recommend", {"history": ["i00", "i07"]}).json()["answers"]
        assert not known["fallback"]
        assert [item["item"] for item in known["items"]] == [item["item"] for item in same["items"]]
        wrong = asking.post("/events", {"events": [{**events[0], "time": "some day"}, events[1]]})
        assert wrong.status_code == 422 and "'some day'" in wrong.json()["error"]
    store.close()
