"""Experts that every task mixes in its own way. n rows, T tasks, E experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.layers.deep import ACTIVATIONS, Activation, deep_network


class MMoE(nn.Module):
    """`y_t = h_t(sum_e g_te f_e(x))` with `g_t = softmax_e(G_t x)`: deep networks f_e of these
    hidden layers, and a linear head h_t a task.

    Ma et al., "Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts", KDD 2018, equations 6 and 7.
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        tasks: int,
        experts: int,
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        *before, last = hidden
        self.experts = nn.ModuleList(
            nn.Sequential(
                *deep_network(width, before, last, activation=activation, dropout=dropout),
                ACTIVATIONS[activation](last),
                nn.Dropout(dropout),
            )
            for _ in range(experts)
        )
        self.gates = nn.Linear(width, tasks * experts, bias=False)
        self.heads = nn.ModuleList(nn.Linear(last, 1) for _ in range(tasks))

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] -> [n, T]."""
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        gates = self.gates(x).unflatten(1, (len(self.heads), len(self.experts))).softmax(2)
        mixed = gates @ answers
        return torch.cat([head(mixed[:, task]) for task, head in enumerate(self.heads)], dim=1)
