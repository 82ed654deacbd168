"""Is a sheaf's Laplacian a better propagation than LightGCN's?

Ratings of 3 and more, split at random 80/10/10 for every user, as in Sheaf4Rec (Purificato et
al., 2023), whose evaluator let items with negative scores rank below seen ones; here seen items
are left out. Both propagations have the same width and batches; each takes whichever of `TRIED`
is best on validation with seed 1. F1@10 is that of averaged precision and recall, as published,
and the mean over users of each one's own. The epoch that validation chose is measured on the test;
intervals are over users, of means over the seeds, and `gain` is the sheaf's, paired by user.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trained import interval, test, train
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.evaluation.evaluator import Result
from recsys.runs.learn import Learnt
from recsys.runs.prepare import prepare

SOURCES: dict[str, dict[str, Any]] = {
    "ml-100k": {"source": "movielens", "path": "ml-100k"},
    "ml-1m": {"source": "movielens", "path": "ml-1m"},
    "book-crossing": {"source": "book_crossing", "path": "book-crossing"},
}
# a step propagates the whole graph, whatever it learns from
BATCH = {"ml-100k": 2048, "ml-1m": 32768, "book-crossing": 32768}
ARMS: dict[str, dict[str, Any]] = {
    "lightgcn": {"propagation": {"name": "lightgcn", "layers": 3}},
    "sheaf": {"propagation": {"name": "sheaf", "layers": 5}},
}
SOFTMAX = {"loss": "softmax", "normalise": True, "negatives": 512}
TRIED: dict[str, dict[str, Any]] = {
    "bpr": {"loss": "bpr"},
    "softmax": {**SOFTMAX, "temperature": 0.2},
}
FIGURES = ("F1@10", "Precision@10", "Recall@10", "NDCG@10")


def config_of(log: str, arm: str, tried: str, seed: int, folder: Path, args: Any) -> RunConfig:
    """A run of one propagation on one log."""
    split = {"protocol": "random", "validation": 0.1, "test": 0.1, "min_label": 3.0}
    data = SOURCES[log]
    return parse_config(
        {
            "name": f"{log}_graph",
            "seed": seed,
            "output": str(folder),
            "data": {**data, "path": str(args.data / data["path"])},
            "split": split,
            "retriever": {"name": "graph", "width": 64, **ARMS[arm], **TRIED[tried]},
            "embeddings": {"init_std": 0.1},
            "reader": {"batch_size": BATCH[log]},
            "trainer": {
                "epochs": args.epochs,
                "validate_every": 2,
                "patience": 5,
                "metric": "F1OfMeans@10",
                "optimizer": {"learning_rate": 1e-2},
            },
            "evaluation": {"ks": [10]},
        }
    )


def measure(config: RunConfig, examples: Examples, group: Group, folder: Path) -> Any:
    """The training and its test figures."""
    found = train(config, examples, group, folder)
    return found, test(config, examples, group, found.model)


def summary(arm: list[tuple[Learnt, Result]], tried: str) -> dict[str, Any]:
    """Means over the seeds."""
    of_users = {name: np.mean([r.users[name] for _, r in arm], axis=0) for name in FIGURES}
    return {
        **{name: interval(values) for name, values in of_users.items()},
        "F1OfMeans@10": round(100 * float(np.mean([r.metrics["F1OfMeans@10"] for _, r in arm])), 2),
        "chosen": tried,
        "epochs": [found.progress.best_epoch for found, _ in arm],
        "seconds": [round(found.seconds) for found, _ in arm],
    }


def main() -> None:
    """Train both on every log and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the logs")
    parser.add_argument("--only", nargs="*", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--tried", nargs="*", choices=list(TRIED), default=list(TRIED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    started, logs = time.perf_counter(), {}
    for log in args.only:
        with tempfile.TemporaryDirectory() as name, join("cpu") as group:
            folder = Path(name)
            config = config_of(log, "lightgcn", "bpr", 1, folder, args)
            ingest_source(config.data, config.store_folder)
            examples, arms, chosen = prepare(config), {}, {}
            for arm in ARMS:
                of_first = {}
                for tried in args.tried:
                    config = config_of(log, arm, tried, 1, folder, args)
                    of_first[tried] = measure(config, examples, group, folder)
                    best = of_first[tried][0].progress
                    minutes = (time.perf_counter() - started) / 60
                    print(
                        f"{log} {arm} {tried} ({minutes:.1f} min): validation {best.best:.4f} "
                        f"at epoch {best.best_epoch}",
                        file=sys.stderr,
                        flush=True,
                    )
                chosen[arm] = max(of_first, key=lambda one: of_first[one][0].progress.best)
                arms[arm] = [of_first[chosen[arm]]]
                for seed in range(2, args.seeds + 1):
                    config = config_of(log, arm, chosen[arm], seed, folder, args)
                    arms[arm].append(measure(config, examples, group, folder))
            logs[log] = {arm: summary(found, chosen[arm]) for arm, found in arms.items()}
            means = {
                arm: np.mean([result.users["F1@10"] for _, result in found], axis=0)
                for arm, found in arms.items()
            }
            logs[log]["gain"] = {"F1@10": interval(means["sheaf"] - means["lightgcn"])}
            print(f"{log}: {json.dumps(logs[log])}", file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "benchmark": "graphs",
                "logs": logs,
                "seeds": args.seeds,
                "minutes": round((time.perf_counter() - started) / 60, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
