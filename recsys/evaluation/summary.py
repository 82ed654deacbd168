"""What users got -> figures with intervals, whole and in slices."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from recsys.evaluation.aggregates import RATIOS
from recsys.evaluation.evaluator import SLICED, Result
from recsys.evaluation.funnel import FUNNEL, funnel_summary
from recsys.evaluation.metrics import f1_of_means
from recsys.figure import Figure
from recsys.statistics.bootstrap import (
    mean_intervals,
    mean_replicates,
    percentiles,
    ratio_intervals,
    statistic_intervals,
)

_EXPOSURE_REPLICATES = 200  # enough for a standard error, and each costs a pass over all lists


def summarise(
    result: Result, *, k: int, replicates: int, labels: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Figures, 95 % bootstrap intervals over users, and slices, as `metrics.json` holds them.

    `labels` says of every user [U] the slice it is in, by the name of the slicing; `k` is the
    cut-off of figures in slices. A figure that does not exist, such as the diversity of lists of
    one item, is None.
    """
    captures = ((name, *columns) for name, columns in RATIOS.items())
    totals = {kind: total for name, kind, total in captures if name == f"{kind}Capture"}
    funnel = funnel_summary(result.users, totals, replicates)
    return {
        **({FUNNEL: funnel} if funnel else {}),
        "metrics": {name: _none_if_nan(value) for name, value in result.metrics.items()},
        "ci95": _intervals(result, replicates),
        "users": len(result.users["user"]),
        "without_history": result.without_history,
        "without_targets": result.without_targets,
        "slices": _slices_of_users(result, k, replicates, labels)
        | _slices_of_items(result, replicates),
    }


def _intervals(result: Result, replicates: int) -> dict[str, list[float | None]]:
    users, ks = result.users, result.ks
    intervals = _mean_intervals(users, result.figures, replicates)
    precision, recall = (
        mean_replicates(np.stack([users[f"{name}@{k}"] for k in ks], 1), replicates=replicates)
        for name in ("Precision", "Recall")
    )
    combined = percentiles(np.asarray(f1_of_means(precision, recall)))
    intervals |= _pairs([f"F1OfMeans@{k}" for k in ks], *combined)
    lists = result.lists
    spread = statistic_intervals(
        lambda users: lists.exposure(result.candidates, users),
        len(lists.longest),
        replicates=min(replicates, _EXPOSURE_REPLICATES),
        within=(0.0, 1.0),  # shares and Gini coefficients
    )
    intervals |= _pairs(lists.names, *np.clip(spread, 0, 1))
    for ratio, (of, over) in RATIOS.items():
        if over in users and f"{of}@{ks[0]}" in users:
            above = np.stack([users[f"{of}@{k}"] for k in ks], 1)
            below = np.broadcast_to(users[over][:, None], above.shape)
            ends = ratio_intervals(above, below, replicates=replicates)
            intervals |= _pairs([f"{ratio}@{k}" for k in ks], *ends)
    return intervals


def _mean_intervals(
    users: dict[str, np.ndarray], names: list[str], replicates: int
) -> dict[str, list[float | None]]:
    values = np.stack([users[name] for name in names], axis=1)
    return _pairs(names, *mean_intervals(values, replicates=replicates))


def _slices_of_users(
    result: Result, k: int, replicates: int, labels: dict[str, np.ndarray]
) -> dict[str, Any]:
    names = [f"{name}@{k}" for name in (*SLICED, "GMV", "Profit")]
    names = [name for name in names if name in result.users]
    slices: dict[str, Any] = {}
    for slicing, of_user in labels.items():
        slices[slicing] = {}
        for label in sorted(set(of_user.tolist()), key=_natural):
            columns = {name: result.users[name][of_user == label] for name in names}
            slices[slicing][label] = _slice(columns, replicates)
    return slices


def _slices_of_items(result: Result, replicates: int) -> dict[str, Any]:
    """Figures of the targets in a slice, over the users who have any."""
    by_slice: dict[str, dict[str, np.ndarray]] = {}
    for column, values in result.users.items():
        figure = Figure.parse(column)
        if figure.slice is not None and not np.isnan(values).all():
            columns = by_slice.setdefault(figure.slice, {})
            columns[str(figure._replace(slice=None))] = values[~np.isnan(values)]
    slices: dict[str, Any] = {}
    for name, columns in by_slice.items():
        slicing, _, label = name.partition("=")
        slices.setdefault(slicing, {})[label] = _slice(columns, replicates)
    return slices


def _natural(label: str) -> list[tuple[int, str]]:
    """Sorts 8-11 before 12-16."""
    return [(int(n or 0), word) for n, word in re.findall(r"(\d*)(\D*)", label)]


def _slice(columns: dict[str, np.ndarray], replicates: int) -> dict[str, Any]:
    return {
        "users": len(next(iter(columns.values()))),
        "metrics": {name: _none_if_nan(values.mean()) for name, values in columns.items()},
        "ci95": _mean_intervals(columns, list(columns), replicates),
    }


def _pairs(names: list[str], low: np.ndarray, high: np.ndarray) -> dict[str, list[float | None]]:
    bounds = zip(low, high, strict=True)
    return {
        name: [_none_if_nan(a), _none_if_nan(b)] for name, (a, b) in zip(names, bounds, strict=True)
    }


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
