"""Do several vectors a user beat one, where users have several interests?

By default on a synthetic log that plants them: every user has four of 60 clusters of items, and
each next event comes from one of the four at random, whatever came before. With `--config NAME
--data FOLDER` on the log and with the options of a config in `pipelines/configs`. All extractors
train at the same width, with the same negatives, targets and epochs; HCN and ComiRec's routing
have more weights than the rest. The best epoch on validation is measured on users that training
has not seen: from the first eight tenths of a history to the rest, as in ComiRec (Cen et al., KDD
2020). With several `--rates` each extractor takes the learning rate that is best on validation
with seed 1.

`recall` is Recall@50 with a 95 % interval over users, of means over the seeds; `gain` the same of
the difference from `mean`, the model with one vector; `figures` are Recall and HR at all cut-offs.
`redundancy` is the mean cosine between a user's interests, `purity` the share of a history that
lies in the interest matched to its planted cluster: `mean` shows what a single interest would have.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.trained import CONFIGS, interval, test, train
from feature_store.columns import HISTORY
from feature_store.protocols import TEST
from feature_store.sources.synthetic_truth import Truth
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, load_config, parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.evaluation.interests import matched_purity, redundancy
from recsys.layers.interests import nearest
from recsys.lists.merging import BY_SCORE, MERGES, MergeName
from recsys.retrievers.multi_interest import MultiInterest
from recsys.runs.evaluators import request_reader
from recsys.runs.prepare import prepare

ARMS: dict[str, dict[str, Any]] = {
    "mean": {"extractor": "mean"},
    "mind": {"extractor": "mind"},
    "comirec_dr": {"extractor": "comirec_dr"},
    "comirec_sa": {"extractor": "comirec_sa"},
    "hcn": {"extractor": "hcn"},
}
MERGED: tuple[MergeName, ...] = ("score", "quota")
K = 50


class Found(NamedTuple):
    """Figures of each test user [U], by the way of merging and by name."""

    figures: dict[MergeName, dict[str, np.ndarray]]
    redundancy: np.ndarray
    purity: np.ndarray | None
    epoch: int
    rate: float
    validation: float

    def recall(self, way: MergeName) -> np.ndarray:
        """Recall@50."""
        return self.figures[way][f"Recall@{K}"]


def config_of(
    folder: Path, seed: int, arm: str, args: argparse.Namespace, rate: float
) -> RunConfig:
    """A run of one extractor; the log is the same for all."""
    if args.config:
        return load_config(
            CONFIGS / f"{args.config}.toml",
            [
                f"data.path={args.data}",
                f"output={folder}",
                f"seed={seed}",
                f"retriever.extractor={arm}",
                f"trainer.optimizer.learning_rate={rate}",
            ],
        )
    world = {"source": "synthetic", "users": args.users, "items": args.items, "interests": 4}
    world |= {"clusters": 60, "events": 40, "session": 1, "stickiness": 0, "drift": 0}
    world |= {"exploration": 0.02, "click_bias": 0, "click_affinity": 0, "traits": 0}
    retriever = {"name": "multi_interest", "width": args.width, "max_length": 50}
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
            "retriever": {**retriever, "negatives": 256, "negative_sets": 1, **ARMS[arm]},
            "reader": {"batch_size": 64},
            "trainer": {
                "epochs": args.epochs,
                "patience": 10,
                "metric": f"Recall@{K}",
                "optimizer": {"learning_rate": rate},
            },
            "evaluation": {"ks": [K]},
        }
    )


def measure(
    config: RunConfig, examples: Examples, clusters: np.ndarray | None, group: Group, folder: Path
) -> Found:
    """Train, and measure the epoch that validation chose; `clusters` are those of item rows."""
    best, progress = train(config, examples, group, folder)
    assert isinstance(best, MultiInterest)
    figures: dict[MergeName, dict[str, np.ndarray]] = {}
    for merge in MERGED:
        best.merge = MERGES[merge]
        users = test(config, examples, group, best).users
        figures[merge] = {n: v for n, v in users.items() if n.split("@")[0] in ("Recall", "HR")}
    best.merge = BY_SCORE
    similar, pure = interests_of(
        best, request_reader(config, examples, best, TEST, group), clusters
    )
    return Found(
        figures,
        similar,
        pure,
        progress.best_epoch,
        config.trainer.optimizer.learning_rate,
        progress.best or 0.0,
    )


@torch.no_grad()
def interests_of(
    model: MultiInterest, requests: Any, clusters: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Redundancy, and where clusters are known matched purity, of every request's interests."""
    similar, pure = [], []
    for batch in requests:
        history = batch.padded(HISTORY, model.config.max_length)
        vectors, weights = model.encode({HISTORY: history})
        events = model.embed_items(history.flatten()).unflatten(0, history.shape)
        similar.append(redundancy(vectors, weights > 0).numpy())
        if clusters is not None:
            closest = nearest(vectors, weights > 0, events)
            known = np.where(history.numpy() != 0, clusters[history.numpy()], -1)
            pure.append(matched_purity(closest.numpy(), known))
    return np.concatenate(similar), np.concatenate(pure) if pure else None


def planted_clusters(config: RunConfig, examples: Examples) -> np.ndarray:
    """The planted cluster of every item row."""
    ids = examples.vocabulary(examples.schema.item).decode(np.arange(examples.num_items))
    truth = Truth.load(config.store_folder)
    found: np.ndarray = truth.items.cluster[ids.fill_null(1).to_numpy(False).astype(int) - 1]
    return found


def summary(found: list[Found], base: list[Found]) -> dict[str, Any]:
    """The figures of an extractor over its seeds, and its gain over `base`."""
    plain = np.mean([one.recall("score") for one in base], axis=0)
    recall = {way: np.mean([one.recall(way) for one in found], axis=0) for way in MERGED}
    of_seeds = [100 * float(one.recall("score").mean()) for one in found]
    similar = np.concatenate([one.redundancy for one in found])
    pure = [one.purity for one in found if one.purity is not None]
    names = found[0].figures["score"]
    return {
        "recall": interval(recall["score"]),
        "gain": interval(recall["score"] - plain),
        "recall_by_quota": interval(recall["quota"]),
        "recall_of_seeds": [round(figure, 2) for figure in of_seeds],
        "figures": {
            name: interval(np.mean([one.figures["score"][name] for one in found], axis=0))
            for name in names
        },
        "purity": round(float(np.nanmean(pure)), 3) if pure else None,
        "redundancy": None if np.isnan(similar).all() else round(float(np.nanmean(similar)), 3),
        "epochs": [one.epoch for one in found],
        "learning_rate": found[0].rate,
    }


def main() -> None:
    """Train every extractor with every seed; a JSON line after each, of all seeds so far."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="a config's name instead of the synthetic log")
    parser.add_argument("--data", type=Path, help="what the config reads, file or folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-3], help="learning rates")
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
        config = config_of(folder, 0, "mean", args, args.rates[0])
        ingest_source(config.data, config.store_folder)
        examples = prepare(config)
        clusters = None if args.config else planted_clusters(config, examples)
        rates = dict.fromkeys(arms, args.rates)
        for seed in range(1, args.seeds + 1):
            for arm in arms:
                tried = [
                    measure(
                        config_of(folder, seed, arm, args, rate), examples, clusters, group, folder
                    )
                    for rate in rates[arm]
                ]
                found[arm].append(max(tried, key=lambda one: one.validation))
                rates[arm] = [found[arm][-1].rate]
                minutes = (time.perf_counter() - started) / 60
                line = json.dumps(summary(found[arm][-1:], found["mean"][-1:]))
                print(f"seed {seed} {arm} ({minutes:.1f} min): {line}", file=sys.stderr, flush=True)
            print(
                json.dumps(
                    {
                        "benchmark": "multi_interest",
                        "arms": {arm: summary(found[arm], found["mean"]) for arm in arms},
                        "config": args.config,
                        "users": len(found["mean"][0].redundancy),
                        "items": examples.num_items - 1,
                        "width": config.to_dict()["retriever"]["width"],
                        "rates": args.rates,
                        "seeds": seed,
                        "minutes": round((time.perf_counter() - started) / 60, 1),
                        "threads": torch.get_num_threads(),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
