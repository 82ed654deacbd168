"""Calibrated: a ranker whose logits are put through a curve, and whose drawn negatives are undone.

K knots, N item rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recsys.rankers.base import Explanation, Ranker, State
from recsys.statistics.calibration import Curve


class _Curve(nn.Module):
    """A curve over tensors."""

    at: Tensor
    values: Tensor
    slopes: Tensor

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        for name in ("at", "values", "slopes"):
            self.register_buffer(name, torch.tensor(getattr(curve, name), dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated logits of any shape, float32."""
        x = logits.double().contiguous()
        piece = torch.searchsorted(self.at, x, right=True)
        knot = (piece - 1).clamp(min=0)
        return (self.values[knot] + self.slopes[piece] * (x - self.at[knot])).float()


class Calibrated(Ranker):
    """A finished ranker with calibrated logits; a task without a curve keeps its own.

    `drawn` [N], where there is one, is added to the first task's: as `log_draws` has it.
    """

    drawn: Tensor | None

    def __init__(
        self, ranker: Ranker, curves: Mapping[str, Curve], drawn: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("drawn", drawn)
        self.ranker = ranker
        self.inputs, self.item = ranker.inputs, ranker.item
        self.tasks, self.concepts = ranker.tasks, ranker.concepts
        self.curves = nn.ModuleList(
            _Curve(curves[task]) if task in curves else nn.Identity() for task in ranker.tasks
        )
        self.train(ranker.training)

    @property
    def embeddings(self) -> Any:
        """The ranker's own."""
        return self.ranker.embeddings

    def freeze(self) -> None:
        """Make once what is the same for all requests."""
        self.ranker.freeze()

    def encode(self, inputs: dict[str, Tensor]) -> State:
        """What the ranker keeps of requests."""
        return self.ranker.encode(inputs)

    def score(self, state: State, items: Tensor) -> Tensor:
        """Calibrated logits [B, M, tasks]."""
        return self._calibrate(self.ranker.score(state, items), items)

    def logits(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        """`score` of `encode`."""
        return self._calibrate(self.ranker.logits(inputs, items), items)

    def explain(self, inputs: dict[str, Tensor], items: Tensor) -> Explanation:
        """What the ranker's logits are made of, before they are calibrated."""
        return self.ranker.explain(inputs, items)

    def labelled(self, rows: Tensor) -> Tensor:
        """As the ranker has it."""
        return self.ranker.labelled(rows)

    def recognised(self, rows: Tensor) -> Tensor:
        """As the ranker has it."""
        return self.ranker.recognised(rows)

    def _calibrate(self, logits: Tensor, items: Tensor) -> Tensor:
        tasks = zip(self.curves, logits.unbind(-1), strict=True)
        first, *others = (curve(of_task) for curve, of_task in tasks)
        if self.drawn is not None:
            first = first + self.drawn[items]
        return torch.stack([first, *others], dim=-1)
