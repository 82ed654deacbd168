"""The like of an ingest and of examples by hand: `pandas RAW OUT` or `polars RAW OUT`.

RAW is a folder of Parquet with user_id, item_id and time. Prints seconds of both as a JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ORDER = ["user_id", "time"]


def by_pandas(raw: Path, out: Path) -> list[float]:
    """All in memory."""
    import pandas as pd

    began = time.perf_counter()
    events = pd.read_parquet(raw).sort_values("time", kind="stable")
    events.to_parquet(out / "log.parquet")
    logged = time.perf_counter()
    events = events.sort_values(ORDER, kind="stable")
    for column in ("user_id", "item_id"):
        events[column] = pd.factorize(events[column], sort=True)[0] + 1
    left = events.groupby("user_id").cumcount(ascending=False)
    for role, rows in (("train", left > 1), ("validation", left == 1), ("test", left == 0)):
        lists = events[rows].groupby("user_id").agg({"item_id": list, "time": list})
        lists.to_parquet(out / f"{role}.parquet")
    return [logged - began, time.perf_counter() - logged]


def by_polars(raw: Path, out: Path) -> list[float]:
    """Lazily, by the streaming engine."""
    import polars as pl

    began = time.perf_counter()
    pl.scan_parquet(raw / "*.parquet").sort("time").sink_parquet(out / "log.parquet")
    logged = time.perf_counter()
    events = pl.scan_parquet(out / "log.parquet").sort(ORDER)
    events = events.with_columns(
        left=pl.col("item_id").cum_count(reverse=True).over("user_id"),
        user_id=pl.col("user_id").rank("dense"),
        item_id=pl.col("item_id").rank("dense"),
    )
    for role, rows in (
        ("train", pl.col("left") > 2),
        ("validation", pl.col("left") == 2),
        ("test", pl.col("left") == 1),
    ):
        lists = events.filter(rows).group_by("user_id", maintain_order=True)
        lists.agg("item_id", "time").sink_parquet(out / f"{role}.parquet")
    return [logged - began, time.perf_counter() - logged]


if __name__ == "__main__":
    name, raw, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True)
    ways: dict[str, Any] = {"pandas": by_pandas, "polars": by_polars}
    ingest, examples = ways[name](raw, out)
    print(json.dumps({"ingest_seconds": round(ingest, 1), "examples_seconds": round(examples, 1)}))
