"""What a ranker predicts of every row, and figures of it with intervals over users."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from recsys.data.batch import Batch
from recsys.distributed import Group
from recsys.evaluation.pointwise import EPSILON, auc_by_group
from recsys.rankers.base import Ranker
from recsys.statistics.bootstrap import percentiles

FIGURES = ("AUC", "GAUC", "LogLoss", "NormalisedEntropy", "Calibration", "ECE")
_BINS = 10


@dataclass(frozen=True)
class Predictions:
    """Of one task, n rows: vocabulary rows of users and items, labels 0 or 1, and logits, each
    [n]."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    @classmethod
    def by_task(
        cls, ranker: Ranker, batches: Iterable[Batch], user: str, group: Group
    ) -> dict[str, Self]:
        """Score all rows, for each of the ranker's tasks; every process gets those of all.

        `user` names the column of the user, which need not be among the ranker's inputs.
        """
        training = ranker.training
        ranker.eval()
        parts: dict[str, list[torch.Tensor]] = {
            "users": [],
            "items": [],
            "labels": [],
            "logits": [],
        }
        with torch.no_grad():
            for batch in batches:
                parts["users"].append(batch.id(user))
                parts["items"].append(batch.id(ranker.item))
                parts["labels"].append(ranker.labels(batch))
                parts["logits"].append(ranker.predict(batch.to(group.device)).float().cpu())
        ranker.train(training)
        mine = {name: torch.cat(of_batches).numpy() for name, of_batches in parts.items()}
        every = group.gather(mine)
        rows = {name: np.concatenate([part[name] for part in every]) for name in mine}
        return {
            task: cls(rows["users"], rows["items"], labels, logits)
            for task, labels, logits in zip(
                ranker.tasks, rows["labels"].T, rows["logits"].T, strict=True
            )
        }

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of the label being 1 [n], float64."""
        return 1 / (1 + np.exp(-self.logits.astype(np.float64)))

    @cached_property
    def _sorted(self) -> _Sorted:
        return _Sorted(self)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by name: see `recsys.evaluation.pointwise`, which they agree with."""
        return dict(zip(FIGURES, self._sorted.figures(None).tolist(), strict=True))

    def intervals(self, replicates: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over users, by name."""
        random = np.random.default_rng(seed)
        users = self._sorted.users
        draws = np.stack(
            [
                self._sorted.figures(
                    np.bincount(random.integers(0, users, users), minlength=users).astype(float)
                )
                for _ in range(replicates)
            ]
        )
        low, high = percentiles(draws)
        return {n: (float(a), float(b)) for n, a, b in zip(FIGURES, low, high, strict=True)}

    def calibration(self) -> dict[str, list[float]]:
        """Mean prediction, rate of positives and rows of each bin of equal width that has any."""
        bins = np.minimum((self.probabilities * _BINS).astype(np.intp), _BINS - 1)
        rows = np.bincount(bins, minlength=_BINS)
        kept = rows > 0
        means = [
            (np.bincount(bins, weights=values, minlength=_BINS)[kept] / rows[kept]).tolist()
            for values in (self.probabilities, self.labels)
        ]
        return {"predicted": means[0], "observed": means[1], "rows": rows[kept].tolist()}

    def table(self, user_ids: pa.Array, item_ids: pa.Array) -> pa.Table:
        """One row a prediction, with raw ids."""
        columns = {"user": user_ids, "item": item_ids}
        return pa.table({**columns, "label": self.labels, "probability": self.probabilities})


class _Sorted:
    """Rows by rising score, so that every replicate costs a few sums."""

    def __init__(self, found: Predictions) -> None:
        order = np.argsort(found.logits, kind="stable")
        names, codes = np.unique(found.users, return_inverse=True)
        self.users = len(names)
        self.user = codes[order]
        self.positive = found.labels[order].astype(np.float64)
        self.p = found.probabilities[order]
        scores = found.logits[order]
        self.runs = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
        clipped = np.clip(self.p, EPSILON, 1 - EPSILON)
        self.loss = -np.log(np.where(self.positive > 0, clipped, 1 - clipped))
        self.bins = np.minimum((self.p * _BINS).astype(np.intp), _BINS - 1)
        self.user_auc, self.user_rows = self._by_user()

    def _by_user(self) -> tuple[np.ndarray, np.ndarray]:
        ranks = np.zeros(len(self.p))
        ranks[self.runs] = 1
        codes, areas, rows = auc_by_group(self.positive, ranks.cumsum(), self.user)
        auc, counts = np.full(self.users, np.nan), np.zeros(self.users)
        auc[codes], counts[codes] = areas, rows
        return auc, counts

    def figures(self, counts: np.ndarray | None) -> np.ndarray:
        """FIGURES, where each user counts as often as `counts` [U] says (once by default)."""
        weights = np.ones(len(self.p)) if counts is None else counts[self.user]
        total, positives = weights.sum(), (weights * self.positive).sum()
        negatives, rate = total - positives, positives / total
        loss = (weights * self.loss).sum() / total
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) if 0 < rate < 1 else 0.0
        gaps = np.bincount(self.bins, weights=weights * (self.p - self.positive), minlength=_BINS)
        judged = ~np.isnan(self.user_auc)
        shares = self.user_rows[judged] * (1.0 if counts is None else counts[judged])
        return np.array(
            [
                self._auc(weights, positives, negatives),
                _over((shares * self.user_auc[judged]).sum(), shares.sum()),
                loss,
                _over(loss, entropy),
                _over((weights * self.p).sum(), positives),
                np.abs(gaps).sum() / total,
            ]
        )

    def _auc(self, weights: np.ndarray, positives: float, negatives: float) -> float:
        above = np.add.reduceat(weights * self.positive, self.runs)
        below = np.add.reduceat(weights * (1 - self.positive), self.runs)
        won = (above * (np.cumsum(below) - below / 2)).sum()
        return _over(won, positives * negatives)


def _over(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")


def summarise_predictions(found: Predictions, *, replicates: int) -> dict[str, Any]:
    """Figures, intervals and calibration, as `metrics.json` holds them; None: no such figure."""
    known = lambda value: None if np.isnan(value) else float(value)  # noqa: E731
    ends = found.intervals(replicates)
    return {
        "metrics": {name: known(value) for name, value in found.metrics.items()},
        "ci95": {name: [known(end) for end in both] for name, both in ends.items()},
        "rows": len(found.labels),
        "users": len(np.unique(found.users)),
        "positive_rate": float(found.labels.mean()),
        "calibration": found.calibration(),
    }
