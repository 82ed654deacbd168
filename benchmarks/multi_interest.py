"""Do several vectors a user beat one, where users have several interests?

A synthetic log plants them: every user has four of 60 clusters of items, and each next event comes
from one of the four at random, whatever came before. All extractors train at the same width, with
the same negatives, targets and epochs; HCN and ComiRec's routing have more weights than the rest.
The best epoch on validation is measured on users that training has not seen: from the first eight
tenths of a history to the rest, as in ComiRec (Cen et al., KDD 2020).

`recall` is Recall@50 with a 95 % interval over users, of means over the seeds; `gain` the same of
the difference from `mean`, the model with one vector. `redundancy` is the mean cosine between a
user's interests, `purity` the share of a history that lies in the interest matched to its planted
cluster: `mean` shows what a single interest would have.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from feature_store.examples import HISTORY
from feature_store.protocols import TEST
from feature_store.sources.synthetic_truth import Truth
from pipelines.ingest import ingest_source
from pipelines.prepare import prepare
from pipelines.train import build_model, make_evaluator, request_reader, trainable, validator
from recsys.config import RunConfig, parse_config
from recsys.evaluation.bootstrap import mean_intervals
from recsys.evaluation.interests import matched_purity, redundancy
from recsys.examples import Examples
from recsys.layers.interests import nearest
from recsys.quota import Merge
from recsys.retrievers.multi_interest import MultiInterest
from recsys.training import checkpoint
from recsys.training.distributed import Group, join
from recsys.training.trainer import Trainer

ARMS: dict[str, dict[str, Any]] = {
    "mean": {"extractor": "mean"},
    "mind": {"extractor": "mind"},
    "comirec_dr": {"extractor": "comirec_dr"},
    "comirec_sa": {"extractor": "comirec_sa"},
    "hcn": {"extractor": "hcn"},
}
MERGED: tuple[Merge, ...] = get_args(Merge)
K = 50


class Found(NamedTuple):
    """Figures of each test user [U]; recall by the way of merging."""

    recall: dict[Merge, np.ndarray]
    redundancy: np.ndarray
    purity: np.ndarray
    epoch: int


def config_of(folder: Path, seed: int, arm: str, args: argparse.Namespace) -> RunConfig:
    """A run of one extractor; the log is the same for all."""
    world = {"source": "synthetic", "users": args.users, "items": args.items, "interests": 4}
    world |= {"clusters": 60, "events": 40, "session": 1, "stickiness": 0, "drift": 0}
    world |= {"exploration": 0.02, "click_bias": 0, "click_affinity": 0, "traits": 0}
    retriever = {"name": "multi_interest", "width": args.width, "interests": 4, "max_length": 50}
    return parse_config(
        {
            "name": "multi_interest",
            "seed": seed,
            "output": str(folder),
            "data": world,
            "split": {
                "protocol": "user_holdout",
                "test": 0.3,
                "event_types": ["click", "purchase"],
            },
            "retriever": {**retriever, "negatives": 256, **ARMS[arm]},
            "reader": {"batch_size": 64},
            "trainer": {
                "epochs": args.epochs,
                "patience": 10,
                "metric": f"Recall@{K}",
                "optimizer": {"learning_rate": 5e-3},
            },
            "evaluation": {"ks": [K]},
        }
    )


def measure(
    config: RunConfig, examples: Examples, clusters: np.ndarray, group: Group, folder: Path
) -> Found:
    """Train, and measure the epoch that validation chose; `clusters` are those of item rows."""
    model = trainable(config, examples)
    reader = model.training_reader(
        examples, config.reader, seed=config.seed, rank=group.rank, world=group.world
    )
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        validate = validator(config, examples, group)
        trainer = Trainer(
            model, reader, config.trainer, group, Path(checkpoints), validate=validate
        )
        epoch = trainer.fit().best_epoch
        best = build_model(config, examples)
        checkpoint.load_unsharded(checkpoint.best(Path(checkpoints)), best)
    assert isinstance(best, MultiInterest)
    best.eval()
    evaluator = make_evaluator(config, examples, TEST)
    recall: dict[Merge, np.ndarray] = {}
    for merge in MERGED:
        best.merge = merge
        requests = request_reader(config, examples, best, TEST, group)
        users = evaluator.evaluate(best, requests, group).users
        recall[merge] = users[f"Recall@{K}"][np.argsort(users["user"])]
    best.merge = "score"
    similar, pure = interests_of(
        best, request_reader(config, examples, best, TEST, group), clusters
    )
    return Found(recall, similar, pure, epoch)


@torch.no_grad()
def interests_of(
    model: MultiInterest, requests: Any, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Redundancy and matched purity of every request's interests."""
    similar, pure = [], []
    for batch in requests:
        history = batch.padded(HISTORY, model.config.max_length)
        vectors, weights = model.encode({HISTORY: history})
        events = model.embed_items(history.flatten()).unflatten(0, history.shape)
        closest = nearest(vectors, weights > 0, events)
        known = np.where(history.numpy() != 0, clusters[history.numpy()], -1)
        similar.append(redundancy(vectors, weights > 0).numpy())
        pure.append(matched_purity(closest.numpy(), known))
    return np.concatenate(similar), np.concatenate(pure)


def interval(values: np.ndarray) -> list[float]:
    """Mean of values [U] and the ends of its interval, in per cent."""
    low, high = mean_intervals(values[:, None])
    return [round(100 * float(figure), 2) for figure in (values.mean(), low[0], high[0])]


def summary(found: list[Found], base: list[Found]) -> dict[str, Any]:
    """The figures of an extractor over its seeds, and its gain over `base`."""
    plain = np.mean([one.recall["score"] for one in base], axis=0)
    recall = {way: np.mean([one.recall[way] for one in found], axis=0) for way in MERGED}
    of_seeds = [100 * float(one.recall["score"].mean()) for one in found]
    similar = np.concatenate([one.redundancy for one in found])
    return {
        "recall": interval(recall["score"]),
        "gain": interval(recall["score"] - plain),
        "recall_by_quota": interval(recall["quota"]),
        "recall_of_seeds": [round(figure, 2) for figure in of_seeds],
        "purity": round(float(np.nanmean([one.purity for one in found])), 3),
        "redundancy": None if np.isnan(similar).all() else round(float(np.nanmean(similar)), 3),
        "epochs": [one.epoch for one in found],
    }


def main() -> None:
    """Train every extractor with every seed and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--items", type=int, default=1800)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--only", nargs="*", choices=list(ARMS), default=list(ARMS))
    args = parser.parse_args()
    arms = list(dict.fromkeys(["mean", *args.only]))
    found: dict[str, list[Found]] = {arm: [] for arm in arms}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, join("cpu") as group:
        folder = Path(name)
        config = config_of(folder, 0, "mean", args)
        ingest_source(config.data, config.store_folder)
        examples = prepare(config)
        ids = examples.vocabulary(examples.schema.item).decode(np.arange(examples.num_items))
        truth = Truth.load(config.store_folder)
        clusters = truth.items.cluster[ids.fill_null(1).to_numpy(False).astype(int) - 1]
        for seed in range(1, args.seeds + 1):
            for arm in arms:
                found[arm].append(
                    measure(config_of(folder, seed, arm, args), examples, clusters, group, folder)
                )
                minutes = (time.perf_counter() - started) / 60
                line = json.dumps(summary(found[arm][-1:], found["mean"][-1:]))
                print(f"seed {seed} {arm} ({minutes:.1f} min): {line}", file=sys.stderr)
    print(
        json.dumps(
            {
                "benchmark": "multi_interest",
                "arms": {arm: summary(found[arm], found["mean"]) for arm in arms},
                "users": args.users,
                "items": args.items,
                "width": args.width,
                "seeds": args.seeds,
                "minutes": round((time.perf_counter() - started) / 60, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
