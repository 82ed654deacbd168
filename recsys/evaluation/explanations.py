"""What the explanations of a ranker tell of it: concepts that count, and examples. K concepts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.data.batch import Batch
from recsys.evaluation.pointwise import auc
from recsys.rankers.base import Ranker

EXAMPLES, NAMED = 10, 6
"""Rows that are shown, and concepts that are named of each."""
_ITEMS = 4096  # at a time


def concept_areas(ranker: Ranker, items: int, device: torch.device) -> tuple[np.ndarray, ...]:
    """Of every concept, how many of the `items` rows but the unknown one are labelled with it, and
    the AUC of what the ranker takes items for, each [K].

    Judged are items with any label; NaN where all of those are labelled alike.
    """
    labels, logits = [], []
    for first in range(1, items, _ITEMS):
        rows = torch.arange(first, min(first + _ITEMS, items), device=device)
        labels.append(ranker.labelled(rows).cpu())
        logits.append(ranker.recognised(rows).float().cpu())
    told = torch.cat(labels).numpy()
    judged = told.any(1)
    said = torch.cat(logits).numpy()[judged]
    areas = [auc(of, scores) for of, scores in zip(told[judged].T, said.T, strict=True)]
    return told.sum(0), np.array(areas)


@dataclass(frozen=True)
class Explained:
    """n rows: vocabulary rows of users and items, labels and logits [n], and what these are made
    of: contributions [n, K] and bias [n]; `own` [n, K] marks concepts of the item."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    contributions: np.ndarray
    bias: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, ranker: Ranker, batches: Iterable[Batch], user: str, device: torch.device) -> Self:
        """Ask a ranker about the rows of batches; `user` names their column of users."""
        parts = []
        for batch in batches:
            moved = batch.to(device)
            inputs, items = ranker.inputs_of(moved), moved.id(ranker.item)
            explained = ranker.explain(inputs, items.unsqueeze(1))
            columns: tuple[Tensor, ...] = (
                batch.id(user),
                items,
                ranker.labels(batch)[:, 0],
                ranker.predict(moved)[:, 0].double(),
                explained.contributions.squeeze(1),
                explained.bias.squeeze(1),
                ranker.labelled(items) > 0,
            )
            parts.append([column.detach().cpu().numpy() for column in columns])
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def concepts(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What each concept contributes to these rows, the largest on average first."""
        size, mean = np.abs(self.contributions).mean(0), self.contributions.mean(0)
        order = np.argsort(-size, kind="stable").tolist()
        return [
            {"place": at, "name": names[at], "size": float(size[at]), "mean": float(mean[at])}
            for at in order
        ]

    def examples(
        self, names: Sequence[str], users: pa.Array, items: pa.Array, seed: int
    ) -> list[dict[str, Any]]:
        """Rows drawn by a seed, one from each tenth of all by probability, the most probable first;
        `users` and `items` [n] are raw ids."""
        tenths = np.array_split(np.argsort(-self.logits, kind="stable"), EXAMPLES)
        rng = np.random.default_rng(seed)
        rows = [int(rng.choice(tenth)) for tenth in tenths if len(tenth)]
        return [
            {
                "user": users[row].as_py(),
                "item": items[row].as_py(),
                "label": float(self.labels[row]),
                "probability": float(1 / (1 + np.exp(-self.logits[row]))),
                **self._reasons(row, names),
            }
            for row in rows
        ]

    def _reasons(self, row: int, names: Sequence[str]) -> dict[str, Any]:
        each = self.contributions[row]
        order = np.argsort(-np.abs(each), kind="stable")
        named, others = order[:NAMED].tolist(), order[NAMED:]
        return {
            "reasons": [
                {"name": names[at], "value": float(each[at]), "own": bool(self.own[row, at])}
                for at in named
            ],
            "others": float(each[others].sum()),
            "bias": float(self.bias[row]),
            "calibration": float(self.logits[row] - each.sum() - self.bias[row]),
        }
