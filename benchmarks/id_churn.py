"""Users who come and go: evicting tables against hashed ones of equal bytes.

    python -m benchmarks.id_churn [--steps 900]

In each step some of the active users are asked whether they like an item; every step a few of them
leave for ever and others come. What a user likes is a planted direction; the model is a table of
users and one of items, and a logit their product. Each answer is predicted before it is learned
from. The map of an evicting table (32 bytes a row in training) is counted, so that hashed tables
have more rows.

The last line of the output is one JSON object: the AUC over the last third of the stream, by
layout. It is appended to benchmarks/results/id_churn.jsonl by whoever keeps it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from feature_store.vocabulary import Keys
from recsys.distributed import join
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import (
    EmbeddingsConfig,
    Evicting,
    Eviction,
    Hashed,
    TableConfig,
    Unified,
)
from recsys.embeddings.tables import Embeddings
from recsys.training.optimizers import Optimizer, fuse
from recsys.training.options import OptimizerConfig
from recsys.training.sharding import shard

WIDTH, ITEMS = 16, 64
ROW, MAP = WIDTH * 4, 32  # bytes
POLICIES: tuple[Eviction, ...] = ("lru", "lfu", "distance_lfu")


def layouts(rows: int) -> dict[str, EmbeddingsConfig]:
    """Of the bytes that an evicting table of `rows` takes with its map."""
    none: dict[str, Any] = {"vocabulary": "none"}
    room = rows * (ROW + MAP) // ROW  # of a hashed table
    budget = (room + ITEMS + 1) * ROW / 1e6
    hashed = TableConfig(**none, rows=room)
    evicting = {"user": TableConfig(**none, rows=rows)}
    return {
        "hashed": Hashed(budget_mb=budget, tables={"user": hashed}),
        "unified": Unified(budget_mb=budget, tables={"user": TableConfig(**none)}),
        **{f"evicting, {of}": Evicting(eviction=of, tables=evicting) for of in POLICIES},
    }


class Taste(torch.nn.Module):
    """Logits [n] of users [n] and items [n]."""

    def __init__(self, config: EmbeddingsConfig) -> None:
        super().__init__()
        users = FeatureSpec("user", "user", 0, vocabulary=Keys(pa.int64(), "user"))
        layout = make_layout([users, FeatureSpec("item", "item", ITEMS + 1)], WIDTH, config)
        self.embeddings = Embeddings(layout)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits [n]."""
        vectors = self.embeddings({"user": users, "item": items})
        return (vectors["user"] * vectors["item"]).sum(1) * WIDTH**0.5


def stream(
    steps: int, active: int, batch: int, leave: int, seed: int
) -> tuple[list[tuple[Tensor, Tensor, Tensor]], int]:
    """Users, items and labels [batch] of every step, and how many users there were in all."""
    rng = np.random.default_rng(seed)
    taste_of_items = rng.standard_normal((ITEMS + 1, 4))
    users = np.arange(1, active + 1)
    tastes, came, found = rng.standard_normal((active, 4)), active, []
    for _ in range(steps):
        gone = rng.choice(active, leave, replace=False)
        users[gone] = np.arange(came + 1, came + leave + 1)
        tastes[gone] = rng.standard_normal((leave, 4))
        came += leave
        asked, items = rng.integers(active, size=batch), rng.integers(1, ITEMS + 1, size=batch)
        scores = (tastes[asked] * taste_of_items[items]).sum(1)
        labels = rng.random(batch) < 1 / (1 + np.exp(-2 * scores))
        found.append(
            (
                torch.from_numpy(users[asked] * 1_000_003),
                torch.from_numpy(items),
                torch.from_numpy(labels.astype(np.float32)),
            )
        )
    return found, came


def auc_of(config: EmbeddingsConfig, steps: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """The AUC of predictions of the last third, each made before its label was learned from."""
    torch.manual_seed(0)
    with join("cpu") as group:
        model, options = Taste(config), OptimizerConfig(learning_rate=0.02)
        fuse(model, options)
        sharded = shard(model, group, options)
        optimizer = Optimizer(sharded, options)
        logits, labels = [], []
        for number, (users, items, liked) in enumerate(steps):
            if number >= len(steps) * 2 // 3:
                with torch.no_grad():
                    logits.append(sharded.eval()(users, items))
                    labels.append(liked)
            loss = F.binary_cross_entropy_with_logits(sharded.train()(users, items), liked)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return float(roc_auc_score(torch.cat(labels), torch.cat(logits)))


def measure(
    steps: int = 900,
    active: int = 1000,
    batch: int = 2000,
    leave: int = 100,
    seed: int = 0,
    only: Collection[str] = (),
) -> dict[str, Any]:
    """AUC by layout (`only` some of them), in tables with 1.2 times as many rows as users are
    active at a time."""
    log, came = stream(steps, active, batch, leave, seed)
    rows = active * 6 // 5
    aucs, seconds = {}, {}
    chosen = {name: of for name, of in layouts(rows).items() if not only or name in only}
    for name, config in chosen.items():
        start = time.perf_counter()
        aucs[name] = round(auc_of(config, log), 4)
        seconds[name] = round(time.perf_counter() - start, 1)
    return {
        "auc": aucs,
        "seconds": seconds,
        "users": came,
        "active": active,
        "bytes": rows * (ROW + MAP),
        "steps": steps,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900)
    print(json.dumps(measure(parser.parse_args().steps)))
