"""Evaluator: ranks the whole catalogue for every user, and keeps what each user got."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from feature_store.errors import DataError
from feature_store.examples import HISTORY, TARGET
from recsys.batch import Batch
from recsys.evaluation.metrics import METRICS, coverage
from recsys.retrievers.base import VectorRetriever
from recsys.training.distributed import Group


class EvaluationConfig(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ks: tuple[int, ...] = Field((1, 5, 10, 20, 50, 100), description="Cut-offs of the lists.")
    batch_size: int = Field(512, ge=1, description="Users ranked at a time.")
    baselines: tuple[str, ...] = Field(
        ("popularity", "recent_popularity"), description="Retrievers measured beside the model."
    )

    @field_validator("ks")
    @classmethod
    def _check(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1 or list(ks) != sorted(set(ks)):
            raise ValueError("ks must be ascending positive numbers, each once")
        return ks

    @property
    def figures(self) -> list[str]:
        """Names of all that is measured, such as NDCG@10."""
        return [f"{name}@{k}" for k in self.ks for name in (*METRICS, "Coverage")]


@dataclass(frozen=True)
class Result:
    """Means over users, the users behind them, and who was left out.

    `ci95` holds half the width of each mean's 95 % interval over users, by the normal
    approximation `1.96 s / sqrt(users)`.
    `per_user` has one row a user: `user` and `recommended` are vocabulary rows, `targets` and
    `history` count items, and there is a column for each metric.
    """

    metrics: dict[str, float]
    ci95: dict[str, float]
    per_user: pa.Table
    without_history: int
    without_targets: int


class Evaluator:
    """Full ranking under one protocol.

    A target that the user has already seen cannot be recommended when seen items are excluded,
    and is no target; users left without targets, and users without a history where the retriever
    needs one, are counted and not averaged. A target outside the candidates is a miss.
    """

    def __init__(
        self, config: EvaluationConfig, candidates: Tensor, *, exclude_seen: bool, user: str
    ) -> None:
        self.config = config
        self.candidates = candidates
        self.exclude_seen = exclude_seen
        self.user = user

    def evaluate(
        self,
        retriever: VectorRetriever,
        batches: Iterable[Batch],
        group: Group,
        progress: Callable[[int], None] | None = None,
    ) -> Result:
        """Rank for the users of `batches`; every process gets the result over all of them.

        Raises DataError when no user is left to average over.
        """
        training = retriever.training
        retriever.eval()
        retriever.prepare(self.candidates.to(group.device))
        parts = []
        for batch in batches:
            parts.append(self._rank(retriever, batch.to(group.device)))
            if progress is not None:
                progress(len(batch))
        retriever.train(training)
        mine = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        whole = group.gather({name: value.cpu() for name, value in mine.items()})
        users = {name: torch.cat([part[name] for part in whole]) for name in mine}
        return self._result(users, retriever.needs_history)

    def _rank(self, retriever: VectorRetriever, batch: Batch) -> dict[str, Tensor]:
        k = self.config.ks[-1]
        seen, targets = batch.padded(HISTORY), batch.padded(TARGET)
        found = retriever.retrieve(batch, k, seen if self.exclude_seen else None)
        if self.exclude_seen:
            targets = targets.masked_fill(_contains(seen, targets), 0)
        targets = _distinct(targets)
        relevant = _contains(targets, found.ids) & (found.ids != 0)
        total = (targets != 0).sum(1)
        out = {
            "user": batch.id(self.user),
            "history": (seen != 0).sum(1),
            "targets": total,
            "recommended": _fill(found.ids, k),
            "scores": _fill(found.scores, k),
        }
        for cut in self.config.ks:
            for name, metric in METRICS.items():
                values = metric(relevant, total.clamp(min=1), cut)
                out[f"{name}@{cut}"] = values.double()
        return out

    def _result(self, users: dict[str, Tensor], needs_history: bool) -> Result:
        has_history = (users["history"] > 0) | (not needs_history)
        has_targets = users["targets"] > 0
        kept = has_history & has_targets
        if not kept.any():
            raise DataError("no user has both a history and a target: nothing to evaluate")
        lists = users["recommended"][kept]
        values = {name: v[kept] for name, v in users.items() if "@" in name}
        metrics = {name: float(v.mean()) for name, v in values.items()}
        root = int(kept.sum()) ** 0.5
        ci95 = {n: 1.96 * float(v.std(correction=0)) / root for n, v in values.items()}
        for cut in self.config.ks:
            metrics[f"Coverage@{cut}"] = coverage(lists[:, :cut], len(self.candidates))
        columns = {
            name: _lists(v[kept]) if v.dim() == 2 else pa.array(v[kept].numpy())
            for name, v in users.items()
        }
        return Result(
            metrics=metrics,
            ci95=ci95,
            per_user=pa.table(columns),
            without_history=int((~has_history).sum()),
            without_targets=int((has_history & ~has_targets).sum()),
        )


def _contains(sets: Tensor, values: Tensor) -> Tensor:
    """Whether each of `values` [B, L] is among the row's `sets` [B, M]."""
    base = torch.arange(len(sets), device=sets.device).unsqueeze(1) * (
        int(max(sets.max(), values.max())) + 1
    )
    return torch.isin(values + base, sets + base)


def _distinct(values: Tensor) -> Tensor:
    """The values [B, L] with repetitions in a row set to 0."""
    ordered, _ = values.sort(dim=1)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(again, 0)


def _fill(values: Tensor, k: int) -> Tensor:
    """[B, <= k] -> [B, k]: lists shorter than k end in zeros."""
    return torch.nn.functional.pad(values, (0, k - values.shape[1]))


def _lists(values: Tensor) -> pa.Array:
    offsets = np.arange(0, values.numel() + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1).numpy()))
