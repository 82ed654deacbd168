"""A stream of users who come and go, of which a table holds a few per cent at a time."""

from __future__ import annotations

from benchmarks.id_churn import measure

ONLY = ("hashed", "unified", "evicting, lru")


def test_evicting_beats_hashing_where_users_come_and_go() -> None:
    """At equal bytes, the map counted."""
    told = measure(steps=100, active=60, batch=200, leave=6, only=ONLY)
    assert told["users"] == 60 + 100 * 6  # nine times as many as have rows
    auc = told["auc"]
    assert auc["evicting, lru"] > max(auc["hashed"], auc["unified"]) + 0.02, auc
