"""BSPM: scores blurred by a filter on the graph, then sharpened, without training."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from recsys.layers.by_parts import by_parts
from recsys.options import ModelConfig
from recsys.retrievers.filters import GraphFilter

_ORDER = {"euler": 1, "rk4": 4}


class BSPMConfig(ModelConfig):
    """Choi et al., "Blurring-sharpening process models for collaborative filtering", SIGIR 2023."""

    name: Literal["bspm"] = "bspm"
    ideal_weight: float = Field(0.2, ge=0, description="beta: weight of the ideal low-pass filter.")
    components: int = Field(
        448, ge=1, description="Singular vectors that the ideal low-pass filter lets through."
    )
    merge: Literal["early", "late"] = Field(
        "early", description="Whether the ideal filter's answer is added before the sharpening."
    )
    sharpening_time: float = Field(
        2.0, ge=0, le=10, description="How long what all share is taken away; 0: not at all."
    )
    sharpening_steps: int = Field(1, ge=1, description="Steps of the solver in that time.")
    solver: Literal["euler", "rk4"] = Field(
        "rk4", description="Of the sharpening: one product a step, or four (Runge-Kutta)."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "ideal_weight": {"low": 0.0, "high": 1.0},
        "components": {"low": 16, "high": 512, "log": True},
        "sharpening_time": {"low": 0.0, "high": 3.0},
        "solver": {"choices": ["euler", "rk4"]},
    }


class BSPM(GraphFilter):
    """Blurring is the linear filter: dB/dt = B P - B, one Euler step over a time of 1, beside the
    ideal filter. Sharpening takes away what neighbours share: dS/dt = -S P.

    As P does not change, a step h of a solver of order n is the Taylor polynomial
    sum_i (-h P)^i / i!, i = 0..n, of Euler (1) as of Runge-Kutta (4).
    """

    Config = BSPMConfig
    config: BSPMConfig

    @property
    def components(self) -> int:
        """Of the ideal filter."""
        return self.config.components

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N]."""
        return by_parts(self._score, histories)

    def _score(self, histories: Tensor) -> Tensor:
        blurred, ideal = self.linear(histories), self.config.ideal_weight * self.ideal(histories)
        if self.config.merge == "early":
            return self._sharpen(blurred + ideal)
        return self._sharpen(blurred) + ideal

    def _sharpen(self, scores: Tensor) -> Tensor:
        step = self.config.sharpening_time / self.config.sharpening_steps
        if step == 0:
            return scores
        for _ in range(self.config.sharpening_steps):
            term = scores
            for power in range(1, _ORDER[self.config.solver] + 1):
                term = self.linear(term) * (-step / power)
                scores = scores + term
        return scores
