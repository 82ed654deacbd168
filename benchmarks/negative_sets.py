"""How many sets of negatives should a step of a retriever draw?

Every arm trains a retriever on the same log with the same options but for its negatives; the figure
is that of the validation, at the epoch with the best NDCG@10. The test is not looked at.
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

from benchmarks.trained import train
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.distributed import Group, join
from recsys.runs.prepare import prepare

RETRIEVERS: dict[str, dict[str, Any]] = {
    "two_tower": {"negative_sampling": "uniform", "log_q": False},
    "multi_interest": {},
    "graph": {},
}
BATCH = {"two_tower": 512, "multi_interest": 32, "graph": 2048}
# A graph knows users by their past alone, and is measured as in `benchmarks.graphs`.
FURTHER: dict[str, dict[str, Any]] = {
    "graph": {
        "split": {"protocol": "random", "validation": 0.1, "test": 0.1, "min_label": 3.0},
        "embeddings": {"init_std": 0.1},
        "trainer": {"optimizer": {"learning_rate": 1e-2}, "validate_every": 2},
    }
}


def arms_of(retriever: str, sets: list[int]) -> dict[str, dict[str, Any]]:
    """Options of each arm by its name."""
    arms: dict[str, dict[str, Any]] = {str(count): {"negative_sets": count} for count in sets}
    if retriever == "two_tower":
        arms["in_batch"] = {"negative_sampling": "in_batch", "log_q": True}
    return arms


def config_of(
    folder: Path, args: argparse.Namespace, retriever: str, arm: dict[str, Any], seed: int
) -> RunConfig:
    """A run of one arm; the log and the split are the same for all."""
    further = FURTHER.get(retriever, {})
    return parse_config(
        {
            "name": retriever,
            "seed": seed,
            "output": str(folder),
            "data": {"source": "movielens", "path": str(args.data)},
            "split": further.get("split", {"protocol": "leave_one_out"}),
            "retriever": {"name": retriever, "width": 64, **RETRIEVERS[retriever], **arm},
            "embeddings": further.get("embeddings", {}),
            "reader": {"batch_size": BATCH[retriever]},
            "trainer": {
                "epochs": args.epochs,
                "patience": args.patience,
                **further.get("trainer", {}),
            },
            "evaluation": {"ks": [10]},
        }
    )


def measure(config: RunConfig, group: Group, folder: Path) -> dict[str, Any]:
    """Train; the best epoch's figure, and the seconds of one."""
    progress = train(config, prepare(config), group, folder).progress
    seconds = [epoch["seconds"] for epoch in progress.history]
    return {
        "NDCG@10": round(progress.best or 0.0, 5),
        "epoch": progress.best_epoch,
        "seconds_an_epoch": round(float(np.median(seconds)), 2),
    }


def main() -> None:
    """Measure every arm with every seed; a JSON line for each retriever."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder or archive of MovieLens")
    parser.add_argument("--only", nargs="*", choices=list(RETRIEVERS), default=list(RETRIEVERS))
    parser.add_argument("--sets", type=int, nargs="+", default=[1, 4, 32, 128])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--patience", type=int, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, join("cpu") as group:
        folder, started = Path(name), time.perf_counter()
        for retriever in args.only:
            arms: dict[str, list[dict[str, Any]]] = {}
            for label, arm in arms_of(retriever, args.sets).items():
                for seed in range(1, args.seeds + 1):
                    config = config_of(folder, args, retriever, arm, seed)
                    if not config.store_folder.exists():
                        ingest_source(config.data, config.store_folder)
                    arms.setdefault(label, []).append(measure(config, group, folder))
                    print(retriever, label, seed, arms[label][-1], file=sys.stderr, flush=True)
            print(
                json.dumps(
                    {
                        "benchmark": "negative_sets",
                        "data": args.data.name,
                        "retriever": retriever,
                        "mean": {
                            label: round(float(np.mean([of["NDCG@10"] for of in runs])), 5)
                            for label, runs in arms.items()
                        },
                        "arms": arms,
                        "seeds": args.seeds,
                        "epochs": args.epochs,
                        "patience": args.patience,
                        "threads": torch.get_num_threads(),
                        "minutes": round((time.perf_counter() - started) / 60, 1),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
