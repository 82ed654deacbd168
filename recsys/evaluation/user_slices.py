"""Which slice every user is in: by activity, by warmth, and by columns of the catalogue."""

from __future__ import annotations

import numpy as np
import torch

from recsys.data.examples import Examples
from recsys.evaluation.columns import slicing_feature
from recsys.evaluation.evaluator import Result
from recsys.evaluation.frequent_values import frequent

COLD_USER = 5  # events below which a user counts as cold


def user_slices(
    result: Result, examples: Examples, columns: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Labels of the users [U] of a result, by slicing; only slicings with two labels or more.

    Raises ConfigError for a column that makes no slices.
    """
    history = result.users["history"]
    slicings = {
        "activity": _quarters(history),
        "users": np.where(history < COLD_USER, "cold", "warm"),
    }
    for name in columns:
        feature = slicing_feature(examples.schema, name)
        if feature.side == "item":
            continue  # sliced by target, see `item_facts`
        users = torch.from_numpy(result.users["user"])
        rows = examples.user_column(feature, users).numpy()
        named, names = frequent(rows, examples.vocabulary(name))
        labels = np.full(int(rows.max()) + 1, "other", dtype=object)
        labels[0] = "unknown"
        labels[named] = names
        slicings[name] = labels[rows]
    return {name: labels for name, labels in slicings.items() if len(set(labels.tolist())) > 1}


def _quarters(history: np.ndarray) -> np.ndarray:
    """Quarters of the users by events in their history, named by their range."""
    bounds = np.unique(np.quantile(history, [0.25, 0.5, 0.75], method="lower"))
    quarter = np.searchsorted(bounds, history, side="left")
    labels = np.empty(len(history), dtype=object)
    for number in np.unique(quarter):
        inside = history[quarter == number]
        labels[quarter == number] = f"{inside.min()}-{inside.max()} events"
    return labels
