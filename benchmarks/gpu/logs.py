"""The logs that GPUs are tried on: a small marketplace, and one of MovieLens-1M's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gpu.step import Settings
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.runs.prepare import prepare

USERS, ITEMS, EVENTS = 6_040, 3_706, 1_000_209  # of MovieLens-1M
_LEAST = 20  # events of a user
_DAYS = 1_000


def config_of(settings: Settings, name: str, data: dict[str, Any], **parts: Any) -> RunConfig:
    """A run below the folder of the steps, which is not tracked."""
    return parse_config(
        {
            "name": name,
            "seed": 1,
            "output": str(settings.folder),
            "data": data,
            "tracking": {"enabled": False},
            **parts,
        }
    )


def examples_of(config: RunConfig) -> Examples:
    """The examples of a run, written unless they are there."""
    ingest_source(config.data, config.store_folder)
    return prepare(config)


def marketplace(settings: Settings) -> dict[str, Any]:
    """`[data]` of the synthetic marketplace."""
    sizes = {"users": 80, "items": 60, "clusters": 5, "events": 12} if settings.tiny else {}
    return {"source": "synthetic", **sizes}


def like_movielens(settings: Settings) -> dict[str, Any]:
    """`[data]` of a generated log with as many users, items and events as MovieLens-1M has."""
    path = settings.folder / "like-movielens.parquet"
    if not path.exists():
        users, items, events = (60, 80, 2_400) if settings.tiny else (USERS, ITEMS, EVENTS)
        write_log(path, users, items, events)
    columns = {"user": "user", "item": "item", "time": "time"}
    return {"source": "parquet", "path": str(path), "columns": columns}


def write_log(path: Path, users: int, items: int, events: int) -> None:
    """Random events: every user has at least 20, lengths are log-normal, and items are drawn by
    Zipf's law."""
    rng = np.random.default_rng(1)
    shares = rng.lognormal(sigma=1.1, size=users)
    spare = events - _LEAST * users
    lengths = _LEAST + np.floor(shares / shares.sum() * spare).astype(np.int64)
    lengths[: events - lengths.sum()] += 1
    popularity = 1 / np.arange(1, items + 1)
    drawn = rng.choice(items, events, p=popularity / popularity.sum())
    seconds = 978_300_000 + np.sort(rng.integers(0, _DAYS * 86_400, events))
    owner = rng.permutation(np.repeat(np.arange(users), lengths))
    times = pa.array(seconds * 1_000_000, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": owner + 1, "item": drawn + 1, "time": times}), path)
