"""Figures of all lists together: they are no means over users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.evaluation.beyond_accuracy import catalogue_coverage, gini
from recsys.evaluation.metrics import f1_of_means
from recsys.evaluation.money import gmv_capture, profit_capture

_USERS = 1 << 16

# Figures that are a sum over users divided by another one: columns of either. The columns of
# StratifiedRecall are weighed, so that their mean over all users is the figure, too.
RATIOS = {
    "GMVCapture": ("GMV", "value"),
    "ProfitCapture": ("Profit", "reachable_profit"),
    "StratifiedRecall": ("StratifiedRecall", "rarity"),
}
_CAPTURES = {"GMVCapture": gmv_capture, "ProfitCapture": profit_capture}


@dataclass(frozen=True)
class Lists:
    """Item rows (0 = none) of all users at every cut-off: the beginnings of `longest` [U, K], but
    where `shorter` holds others [U, k]."""

    longest: np.ndarray
    ks: tuple[int, ...]
    shorter: Mapping[int, np.ndarray]

    def exposure(self, candidates: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Coverage and Gini at every cut-off [2 C], of all lists or of those of some `users`, who
        may occur again."""
        if not self.shorter:
            return exposure(self.longest, self.ks, candidates, users)
        lists = ((self.shorter.get(k, self.longest), k) for k in self.ks)
        return np.concatenate([exposure(rows, (k,), candidates, users) for rows, k in lists])

    @property
    def names(self) -> list[str]:
        """Names of what `exposure` gives."""
        return [f"{name}@{k}" for k in self.ks for name in ("Coverage", "Gini")]


def aggregate(
    users: Mapping[str, np.ndarray], lists: Lists, candidates: np.ndarray
) -> dict[str, float]:
    """Coverage, Gini, F1OfMeans and, with money, GMVCapture and ProfitCapture at every cut-off.

    `users` are the columns of `evaluator.Result`, `candidates` [N] the rows that were ranked.
    """
    figures = dict(zip(lists.names, lists.exposure(candidates), strict=True))
    for k in lists.ks:
        means = (users[f"{name}@{k}"].mean() for name in ("Precision", "Recall"))
        figures[f"F1OfMeans@{k}"] = f1_of_means(*means)
    for name, capture in _CAPTURES.items():
        kind, total = RATIOS[name]
        if total in users:
            money = np.stack([users[f"{kind}@{k}"] for k in lists.ks], axis=1)
            captured = capture(money, users[total])
            figures |= {f"{name}@{k}": share for k, share in zip(lists.ks, captured, strict=True)}
    return {name: float(value) for name, value in figures.items()}


def exposure(
    lists: np.ndarray,
    ks: tuple[int, ...],
    candidates: np.ndarray,
    users: np.ndarray | None = None,
) -> np.ndarray:
    """Coverage and Gini at every cut-off [2 C], from item rows [U, K] (0 = none), of all lists or
    of those of some `users`, who may occur again."""
    users = np.arange(len(lists)) if users is None else users
    counts = np.zeros(max(int(lists.max(initial=0)), int(candidates.max())) + 1, dtype=np.int64)
    out, done = [], 0
    for k in ks:
        for first in range(0, len(users), _USERS):  # counting copies what it counts
            shown = lists[users[first : first + _USERS], done:k]
            counts += np.bincount(shown.ravel(), minlength=len(counts))
        exposed = counts[candidates]
        out += [catalogue_coverage(exposed), gini(exposed)]
        done = k
    return np.array(out, dtype=np.float64)
