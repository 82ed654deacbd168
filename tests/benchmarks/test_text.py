"""What the benchmark of texts says of a toy."""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import text


def test_speed_and_memory_are_told_of_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """And padding to the longest keeps more for the backward pass than what we do."""
    monkeypatch.setitem(text.SIZES, "toy", (16, 1, 1, 8))
    titles = pa.table({"title": [None, *(f"thing number {n}" for n in range(30))]})
    random = np.random.default_rng(1)
    log = text.Log(titles, [random.integers(1, 31, size) for size in (3, 4, 5, 6)])
    options = {"tokens": 128, "batches": 2, "batch_size": 2, "items": 12, "device": "cpu"}
    told = text.measure(log, "toy", argparse.Namespace(**options))
    ways = {"ours", "plain", "batched"}
    for part, speed in (("training", "sequences_per_second"), ("encoding", "items_per_second")):
        assert set(told[part][speed]) == ways and min(told[part][speed].values()) > 0
    memory = told["training"]["batch_mb"]
    assert set(memory) == ways and 0 < memory["ours"] < min(memory["plain"], memory["batched"])
