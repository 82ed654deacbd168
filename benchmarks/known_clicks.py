"""How near do rankers come to the best that anybody could do, where click probabilities are known?

Finished runs over the synthetic log, whose names end in their seed:

    for seed in 1 2 3; do
      for name in synthetic_din synthetic_pooling synthetic_places; do
        recsys run pipelines/configs/$name.toml name=${name}_$seed seed=$seed
      done
      recsys run pipelines/configs/synthetic_places.toml ranker.position=false \\
        name=synthetic_no_places_$seed seed=$seed
    done
    python -m benchmarks.known_clicks runs/synthetic_{din,pooling,places,no_places}_[123]

`auc` is of the test's clicks. `auc_if_looked_at` is what it would be in the mean of all clicks that
could have been drawn for these rows, had every place been looked at: of scores against the true
probabilities, and so free of the luck of one draw. `truth` has both of the probabilities
themselves, which no ranker exceeds but by luck, and `below_truth` the difference;
`rank_correlation` is Spearman's, of scores and true probabilities. Means over seeds; intervals of
95 % over users, the same users drawn for all seeds and for the truth.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.requests import processor
from feature_store.sources.synthetic_truth import Truth
from recsys.config import parse_config
from recsys.evaluation.pointwise import areas_of_runs
from recsys.runs.finished import Run
from recsys.statistics.bootstrap import percentiles

REPLICATES = 500
START = np.zeros(1, np.intp)


def expected_aucs(scores: np.ndarray, chances: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """P(a clicked row scores above one that is not) [R], over all pairs of rows [n] that are
    clicked with these chances [n], where rows count so often [R, n]; a tie counts half."""
    order = np.argsort(scores)
    firsts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    areas = np.empty(len(counts))
    for at, count in enumerate(counts):
        clicked, passed = (
            np.add.reduceat((count * share)[order], firsts) for share in (chances, 1 - chances)
        )
        areas[at] = areas_of_runs(clicked, passed, START)[0]
    return areas


def test_rows(run: Run) -> tuple[pd.DataFrame, np.ndarray]:
    """What the run's ranker predicted of the test, and the true chances of a click there."""
    config = parse_config(run.config)
    assert config.ranker is not None
    rows = pd.read_parquet(run.files.predictions_of(config.ranker.name))
    truth = Truth.load(config.store_folder)
    assert truth.world.drift == 0  # so that any moment will do
    users, items = (rows[side].to_numpy().astype(np.int64) for side in ("user", "item"))
    moments = np.full(len(rows), np.datetime64("2024-01-01", "s"))
    return rows, truth.click_probability(users, items, moments)


def counted(users: pd.Series, replicates: int) -> np.ndarray:
    """How often rows [n] count: [1 + R, n], once each, then as often as their user is drawn."""
    codes, names = pd.factorize(users)
    random = np.random.default_rng(0)
    shares = np.full(len(names), 1 / len(names))
    drawn = random.multinomial(len(names), shares, size=replicates)
    return np.concatenate([np.ones((1, len(users)), np.int64), drawn[:, codes]])


def judged(runs: list[Run]) -> dict[str, Any]:
    """The figures of runs that differ in their seeds."""
    of_seeds: dict[str, list[np.ndarray]] = defaultdict(list)
    correlations = []
    for run in runs:
        rows, chances = test_rows(run)
        counts = counted(rows["user"], REPLICATES)
        scores, labels = (rows[name].to_numpy(np.float64) for name in ("probability", "label"))
        for name, outcome in (("auc", labels), ("auc_if_looked_at", chances)):
            model, truth = (expected_aucs(by, outcome, counts) for by in (scores, chances))
            of_seeds[name].append(model)
            of_seeds[f"truth.{name}"].append(truth)
            of_seeds[f"below_truth.{name}"].append(truth - model)
        correlations.append(round(float(spearmanr(scores, chances).statistic), 4))
    figures: dict[str, Any] = {"rows": len(rows), "users": int(rows["user"].nunique())}
    figures["rank_correlation"] = correlations
    for name, values in of_seeds.items():
        means = np.mean(values, axis=0)
        low, high = percentiles(means[1:, None])
        figures[name] = {
            "by_seed": [round(float(of_seed[0]), 4) for of_seed in values],
            "mean": round(float(means[0]), 4),
            "ci95": [round(float(low[0]), 4), round(float(high[0]), 4)],
        }
    return figures


def main() -> None:
    """Judge the runs, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    groups: dict[str, list[Run]] = defaultdict(list)
    for folder in parser.parse_args().runs:
        run = Run(folder)
        groups[run.config["name"].removesuffix(f"_{run.config['seed']}")].append(run)
    line = {"benchmark": "known_clicks", "processor": processor()}
    print(json.dumps(line | {name: judged(runs) for name, runs in groups.items()}))


if __name__ == "__main__":
    main()
