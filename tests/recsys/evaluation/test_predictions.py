"""Predictions: figures as the functions for whole arrays give them, intervals over users."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys.evaluation import pointwise
from recsys.evaluation.predictions import FIGURES, Predictions, summarise_predictions


def make(rows: int = 400, users: int = 30, seed: int = 0, noise: float = 1.0) -> Predictions:
    """Users with tastes of their own; scores are rounded, so that there are ties."""
    random = np.random.default_rng(seed)
    who = random.integers(0, users, rows)
    truth = random.normal(size=rows) + random.normal(size=users)[who]
    labels = (random.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    logits = np.round(truth + noise * random.normal(size=rows), 1).astype(np.float32)
    return Predictions(who, random.integers(1, 9, rows), labels, logits)


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_the_functions(seed: int) -> None:
    found = make(seed=seed)
    p = found.probabilities
    assert found.metrics == pytest.approx(
        {
            "AUC": pointwise.auc(found.labels, found.logits),
            "GAUC": pointwise.gauc(found.labels, found.logits, found.users),
            "LogLoss": pointwise.log_loss(found.labels, p),
            "NormalisedEntropy": pointwise.normalised_entropy(found.labels, p),
            "Calibration": pointwise.calibration_ratio(found.labels, p),
            "ECE": pointwise.expected_calibration_error(found.labels, p),
        },
        abs=1e-12,
    )
    assert tuple(found.metrics) == FIGURES


def test_a_user_drawn_twice_counts_as_two_users() -> None:
    """The replicates of the bootstrap, worked out on rows that are really there twice."""
    found, counts = make(seed=3, users=5), np.array([2.0, 0, 1, 3, 1])
    rows = np.concatenate([np.flatnonzero(found.users == u) for u in (0, 0, 2, 3, 3, 3, 4)])
    new = np.concatenate(
        [np.full((found.users == u).sum(), place) for place, u in enumerate((0, 0, 2, 3, 3, 3, 4))]
    )
    drawn = Predictions(new, found.items[rows], found.labels[rows], found.logits[rows])
    assert found._sorted.figures(counts) == pytest.approx(list(drawn.metrics.values()), abs=1e-12)


def test_intervals_hold_the_figure_and_narrow_with_more_users() -> None:
    few, many = make(users=20, seed=1), make(rows=4000, users=400, seed=1)
    for found in (few, many):
        for name, (low, high) in found.intervals(300).items():
            assert low <= found.metrics[name] <= high, name
    width = [np.diff(found.intervals(300)["AUC"])[0] for found in (few, many)]
    assert width[1] < 0.6 * width[0]
    assert few.intervals(100) == few.intervals(100)


def test_the_interval_of_a_calibrated_ranker_s_ece_begins_at_nothing() -> None:
    """Labels as likely as they are said to be: what gap there is, is chance, and so is more."""
    random = np.random.default_rng(2)
    logits = random.normal(size=600).astype(np.float32)
    labels = (random.random(600) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    found = Predictions(np.arange(600) % 60, np.ones(600, int), labels, logits)
    low, high = found.intervals(300)["ECE"]
    assert 0 <= low < found.metrics["ECE"] < high < 2.5 * found.metrics["ECE"]


def test_one_class_has_no_auc() -> None:
    found = Predictions(np.array([1, 1]), np.array([2, 3]), np.ones(2), np.array([0.5, 1.0]))
    summary = summarise_predictions(found, replicates=100)
    assert summary["metrics"]["AUC"] is None and summary["metrics"]["GAUC"] is None
    assert summary["metrics"]["LogLoss"] > 0 and summary["ci95"]["AUC"] == [None, None]


def test_calibration_by_hand() -> None:
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    p = np.array([0.05, 0.05, 0.65, 0.65, 0.65, 0.65])
    found = Predictions(np.arange(6), np.arange(6), np.array([0, 1, 1, 1, 1, 0.0]), logit(p))
    bins = found.calibration()
    assert bins["predicted"] == pytest.approx([0.05, 0.65])
    assert bins["observed"] == pytest.approx([0.5, 0.75]) and bins["rows"] == [2, 4]
    summary = summarise_predictions(found, replicates=100)
    assert summary["metrics"]["ECE"] == pytest.approx(2 / 6 * 0.45 + 4 / 6 * 0.1)
    assert (summary["rows"], summary["users"]) == (6, 6)


def test_rows_keep_their_ids() -> None:
    found = make(rows=3)
    table = found.table(pa.array(["a", "b", "c"]), pa.array([7, 8, 9]))
    assert table.column("item").to_pylist() == [7, 8, 9]
    assert table.column("probability").to_pylist() == pytest.approx(found.probabilities.tolist())
