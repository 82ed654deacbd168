"""What a ranker predicts of every row, and figures of it with intervals over users."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from scipy.special import logit

from feature_store.columns import LAST_TOUCHED, LIST, LIST_PLACE
from recsys.data.batch import Batch
from recsys.distributed import Group
from recsys.evaluation.pointwise import (
    areas_of_runs,
    auc_by_group,
    bins_of,
    losses,
    mean_area,
    mean_gap,
    over_entropy,
    ratio,
    runs_of,
)
from recsys.evaluation.shown_lists import ListFigures, ShownLists
from recsys.rankers.base import Ranker
from recsys.statistics.bootstrap import around, percentiles

OF_LISTS = (LIST, LIST_PLACE, LAST_TOUCHED)
"""Columns of rows that lists are judged by."""
FIGURES = ("AUC", "GAUC", "LogLoss", "NormalisedEntropy", "Calibration", "ECE")
_BINS = 10


@dataclass(frozen=True)
class Predictions:
    """Of one task, n rows: vocabulary rows of users and items, labels 0 or 1, and logits, each
    [n]; where lists are judged those that the rows are `shown` in, list 0 for none."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    shown: ShownLists | None = None

    @classmethod
    def by_task(
        cls,
        ranker: Ranker,
        batches: Iterable[Batch],
        user: str,
        group: Group,
        *,
        lists: bool = False,
        as_shown: bool = False,
    ) -> dict[str, Self]:
        """Score all rows, for each of the ranker's tasks those that have a label of it; every
        process gets those of all.

        `user` names the column of the user, which need not be among the ranker's inputs; with
        `lists` the batches have the columns OF_LISTS. What is predicted knows no places unless
        `as_shown`.
        """
        training = ranker.training
        ranker.eval()
        predict = ranker.predict_shown if as_shown else ranker.predict
        of_batches: dict[str, list[torch.Tensor]] = {
            "users": [],
            "items": [],
            "labels": [],
            "logits": [],
            **{name: [] for name in OF_LISTS if lists},
        }
        with torch.no_grad():
            for batch in batches:
                of_batches["users"].append(batch.id(user))
                of_batches["items"].append(batch.id(ranker.item))
                of_batches["labels"].append(ranker.labels(batch))
                for name in OF_LISTS if lists else ():
                    of_batches[name].append(batch.id(name))
                of_batches["logits"].append(predict(batch.to(group.device)).float().cpu())
        ranker.train(training)
        own = {name: torch.cat(columns).numpy() for name, columns in of_batches.items()}
        gathered = group.gather(own)
        rows = {name: np.concatenate([columns[name] for columns in gathered]) for name in own}
        by_task = {}
        for task, labels, logits in zip(
            ranker.tasks, rows["labels"].T, rows["logits"].T, strict=True
        ):
            known = ~np.isnan(labels)
            users, items, labels, logits = (
                column[known] for column in (rows["users"], rows["items"], labels, logits)
            )
            shown = None
            if lists:
                codes, places, touched = (rows[name][known] for name in OF_LISTS)
                shown = ShownLists(codes, users, places, touched, labels)
            by_task[task] = cls(users, items, labels, logits, shown)
        return by_task

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """What `table` gave, with the places of users and items among their sorted ids in place of
        vocabulary rows."""
        users, items = (
            np.unique(table.column(name).to_numpy(), return_inverse=True)[1]
            for name in ("user", "item")
        )
        labels = table.column("label").to_numpy()
        return cls(users, items, labels, logit(table.column("probability").to_numpy()))

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of the label being 1 [n], float64."""
        return 1 / (1 + np.exp(-self.logits.astype(np.float64)))

    @cached_property
    def _sorted(self) -> _SortedRows:
        return _SortedRows(self)

    @cached_property
    def lists(self) -> ListFigures | None:
        """Figures of the lists, where they are judged."""
        return None if self.shown is None else self.shown.judge(self.logits)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by name: of lists first, and those of `recsys.evaluation.pointwise`."""
        of_rows = dict(zip(FIGURES, self._sorted.figures(None).tolist(), strict=True))
        return of_rows if self.lists is None else self.lists.metrics | of_rows

    def replicates(self, replicates: int, seed: int = 0) -> np.ndarray:
        """FIGURES [replicates, 6] over resampled users: the same draws for the same users, so that
        replicates of two rankers are paired."""
        random = np.random.default_rng(seed)
        users = self._sorted.users
        return np.stack(
            [
                self._sorted.figures(
                    np.bincount(random.integers(0, users, users), minlength=users).astype(float)
                )
                for _ in range(replicates)
            ]
        )

    def by_user(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of the figures that are ratios of sums over users, what each user, by rising id, adds
        above and below [U]; NaN above where a user is left out of both."""
        return self._sorted.by_user()

    def intervals(self, replicates: int, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over users, or lists, by name: percentiles, and for ECE the
        spread around the figure. A sum of absolute gaps, it is larger in nearly every replicate
        than in the sample, whose gaps those of a replicate are added to.
        """
        draws = self.replicates(replicates, seed)
        low, high = percentiles(draws)
        ece = FIGURES.index("ECE")
        low[ece], high[ece] = around(
            self._sorted.figures(None)[ece], draws[:, ece], within=(0.0, 1.0)
        )
        of_rows = {n: (float(a), float(b)) for n, a, b in zip(FIGURES, low, high, strict=True)}
        return of_rows if self.lists is None else self.lists.intervals(replicates) | of_rows

    def calibration(self) -> dict[str, list[float]]:
        """Mean prediction, rate of positives and rows of each bin of equal width that has any."""
        bins = bins_of(self.probabilities, _BINS)
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


class _SortedRows:
    """Rows by rising score, so that every replicate costs a few sums."""

    def __init__(self, predictions: Predictions) -> None:
        order = np.argsort(predictions.logits, kind="stable")
        names, codes = np.unique(predictions.users, return_inverse=True)
        self.users = len(names)
        self.user = codes[order]
        self.positive = predictions.labels[order].astype(np.float64)
        self.p = predictions.probabilities[order]
        self.runs, lengths = runs_of(predictions.logits[order])
        self.losses = losses(self.positive > 0, self.p)
        self.bins = bins_of(self.p, _BINS)
        ranks = np.repeat(np.arange(len(lengths)), lengths)
        users, areas, rows = auc_by_group(self.positive, ranks, self.user)
        by_user = np.argsort(users)
        areas, rows = areas[by_user], rows[by_user]
        self.judged = np.flatnonzero(~np.isnan(areas))
        self.judged_areas, self.judged_rows = areas[self.judged], rows[self.judged]

    def figures(self, counts: np.ndarray | None) -> np.ndarray:
        """FIGURES, where each user counts as often as `counts` [U] says (once by default)."""
        weights = np.ones(len(self.p)) if counts is None else counts[self.user]
        positive = weights * self.positive
        total, positives = weights.sum(), positive.sum()
        loss = (weights * self.losses).sum() / total
        positives_of_runs = np.add.reduceat(positive, self.runs)
        negatives_of_runs = np.add.reduceat(weights - positive, self.runs)
        judged_rows = self.judged_rows * (1.0 if counts is None else counts[self.judged])
        return np.array(
            [
                areas_of_runs(positives_of_runs, negatives_of_runs, np.zeros(1, np.intp))[0],
                mean_area(self.judged_areas, judged_rows),
                loss,
                over_entropy(loss, positives / total),
                ratio((weights * self.p).sum(), positives),
                mean_gap(self.bins, weights * (self.p - self.positive), _BINS, total),
            ]
        )

    def by_user(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """As `Predictions.by_user`."""
        rows = np.bincount(self.user, minlength=self.users).astype(np.float64)
        areas = np.full(self.users, np.nan)
        areas[self.judged] = self.judged_areas
        lost = np.bincount(self.user, weights=self.losses, minlength=self.users)
        return {"GAUC": (areas * rows, rows), "LogLoss": (lost, rows)}


def summarise_predictions(predictions: Predictions, *, replicates: int) -> dict[str, Any]:
    """Figures, intervals and calibration, as `metrics.json` holds them; None: no such figure."""
    intervals = predictions.intervals(replicates)
    return {
        "metrics": figures_of(predictions),
        "ci95": {name: [_none_if_nan(end) for end in ends] for name, ends in intervals.items()},
        "rows": len(predictions.labels),
        "users": len(np.unique(predictions.users)),
        "positive_rate": float(predictions.labels.mean()),
        "calibration": predictions.calibration(),
        **({} if predictions.lists is None else {"lists": predictions.lists.judged}),
    }


def summarise_lists(lists: ListFigures, *, replicates: int) -> dict[str, Any]:
    """Figures and intervals of lists that nobody predicted anything of."""
    return {
        "metrics": {name: _none_if_nan(value) for name, value in lists.metrics.items()},
        "ci95": {
            name: [_none_if_nan(end) for end in ends]
            for name, ends in lists.intervals(replicates).items()
        },
        "lists": lists.judged,
    }


def figures_of(predictions: Predictions) -> dict[str, float | None]:
    """Figures, as `metrics.json` holds them."""
    return {name: _none_if_nan(value) for name, value in predictions.metrics.items()}


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
