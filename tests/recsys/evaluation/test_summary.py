"""Figures with intervals, whole and in slices, from users whose every value is planted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recsys.evaluation.evaluator import Result
from recsys.evaluation.summary import summarise
from recsys.statistics.bootstrap import mean_intervals

KS = (1, 2)
LISTS = np.array([[1, 2], [1, 3], [1, 0], [2, 1]])
PRECISION, RECALL = [[1.0, 0.5], [0, 0.5], [0, 0], [1, 1]], [[0.5, 0.5], [0, 1], [0, 0], [0.5, 1]]


def planted(copies: int = 1) -> Result:
    """Four users, or many that are copies of them."""
    users: dict[str, np.ndarray] = {
        "user": np.arange(1, 4 * copies + 1),
        "history": np.tile([1, 2, 9, 30], copies),
        "targets": np.tile([2, 1, 1, 2], copies),
        "recommended": np.tile(LISTS, (copies, 1)),
        "value": np.tile([10.0, 0, 5, 5], copies),
        "Recall@2|popularity=head": np.tile([1.0, np.nan, 0, 0], copies),
        "Recall@2|popularity=tail": np.full(4 * copies, np.nan),
    }
    columns = {"Precision": PRECISION, "Recall": RECALL, "NDCG": RECALL}
    columns["GMV"] = [[4.0, 10], [0, 0], [0, 0], [0, 5]]
    columns["Novelty"] = [[1.0, 2], [3, 4], [np.nan, np.nan], [5, 6]]
    for name, values in columns.items():
        for place, k in enumerate(KS):
            users[f"{name}@{k}"] = np.tile(np.array(values)[:, place], copies)
    return Result(users, KS, np.array([1, 2, 3, 4]), without_history=2, without_targets=1)


def test_profit_has_intervals_and_slices_beside_money() -> None:
    """Everyone's list finds half of what could be reached, but for a loss."""
    result = planted(50)
    result.users["reachable_profit"] = np.tile([8.0, 0, 2, 2], 50)
    for k in KS:
        result.users[f"Profit@{k}"] = np.tile([4.0, -1, 1, 1], 50)
    labels = {"users": np.tile(["cold", "warm"], 100)}
    found = summarise(result, k=2, replicates=200, labels=labels)
    assert found["metrics"]["ProfitCapture@2"] == pytest.approx(5 / 12)
    low, high = found["ci95"]["ProfitCapture@2"]
    assert 0.2 < low < 5 / 12 < high < 0.5
    assert found["ci95"]["Profit@2"][0] < 1.25 < found["ci95"]["Profit@2"][1]
    assert found["slices"]["users"]["warm"]["metrics"]["Profit@2"] == 0


def test_a_ratio_s_interval_is_that_of_both_its_sums() -> None:
    """Everyone finds half of the weight that their targets have, much or little: no sample of
    users finds another share. The weight found alone varies as the weights do."""
    result = planted(50)
    rarity = np.tile([0.2, 0.4, 1.4, 2.0], 50)
    result.users["rarity"], result.users["StratifiedRecall@1"] = rarity, rarity / 4
    result.users["StratifiedRecall@2"] = rarity / 2
    found = summarise(result, k=2, replicates=200, labels={})
    assert found["metrics"]["StratifiedRecall@2"] == pytest.approx(0.5)
    assert found["ci95"]["StratifiedRecall@2"] == pytest.approx([0.5, 0.5])


LABELS = {"users": np.array(["cold", "cold", "warm", "warm"])}


def test_every_figure_has_an_interval_around_it() -> None:
    found = summarise(planted(50), k=2, replicates=200, labels={})
    metrics, bounds = found["metrics"], found["ci95"]
    assert set(metrics) == set(bounds)
    assert metrics["Recall@2"] == pytest.approx(2.5 / 4)
    assert metrics["Novelty@1"] == pytest.approx(3)  # the list that has none is left out
    assert metrics["GMVCapture@2"] == pytest.approx(15 / 20)
    assert metrics["Coverage@2"] == pytest.approx(3 / 4)
    assert metrics["F1OfMeans@2"] == pytest.approx(2 * 0.5 * 0.625 / (0.5 + 0.625))
    for name, (low, high) in bounds.items():
        assert low <= metrics[name] <= high, name
        assert name.startswith("Coverage") or low < high, name
    assert (found["users"], found["without_history"], found["without_targets"]) == (200, 2, 1)
    low, high = mean_intervals(np.tile(np.array(RECALL)[:, 1:], (50, 1)), replicates=200)
    assert bounds["Recall@2"] == [low[0], high[0]]


def test_an_interval_of_a_share_ends_at_1() -> None:
    """Four users reach all of four candidates, and half as many do not."""
    result = planted()
    result.users["recommended"] = np.array([[1, 1], [2, 2], [3, 3], [4, 4]])
    found = summarise(result, k=2, replicates=200, labels={})
    assert found["metrics"]["Coverage@1"] == 1 and found["ci95"]["Coverage@1"][1] == 1
    assert found["metrics"]["Gini@1"] == 0 and found["ci95"]["Gini@1"][0] == 0


def test_slices_hold_the_figures_of_their_users_or_targets() -> None:
    slices = summarise(planted(), k=2, replicates=100, labels=LABELS)["slices"]
    assert set(slices) == {"users", "popularity"}
    assert slices["users"]["cold"]["users"] == 2
    assert slices["users"]["cold"]["metrics"] == {"Recall@2": 0.75, "NDCG@2": 0.75, "GMV@2": 5}
    assert slices["users"]["warm"]["metrics"]["GMV@2"] == 2.5
    # nobody has a target in the tail; one user has none in the head
    assert list(slices["popularity"]) == ["head"]
    assert slices["popularity"]["head"]["users"] == 3
    assert slices["popularity"]["head"]["metrics"] == {"Recall@2": pytest.approx(1 / 3)}


def test_the_same_users_give_the_same_intervals_and_valid_json() -> None:
    first, second = (summarise(planted(), k=2, replicates=100, labels=LABELS) for _ in range(2))
    assert first == second
    json.dumps(first, allow_nan=False)
