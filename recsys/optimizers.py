"""Optimizers: one for what is dense, a fused one for sharded tables, one schedule for both."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad


class OptimizerConfig(BaseModel):
    """How weights move."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adam", "adamw", "adagrad", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    beta2: float = Field(0.999, gt=0, lt=1, description="Second moment's decay of Adam.")
    sharded: Literal["rowwise_adagrad", "adagrad", "sgd"] = Field(
        "rowwise_adagrad", description="Fused optimizer of sharded tables."
    )
    sharded_learning_rate: float = Field(0.02, gt=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="After warm-up, over the planned steps, down to `final`."
    )
    final: float = Field(0.0, ge=0, le=1, description="Share of the rate left at the end.")

    def factor(self, step: int, steps: int) -> float:
        """The share of the learning rate used at `step` of `steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        done = min(1.0, done)
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * left


def fuse(model: nn.Module, config: OptimizerConfig) -> None:
    """Give the tables that will be sharded an optimizer that runs in the backward pass."""
    kinds = {
        "rowwise_adagrad": RowWiseAdagrad,
        "adagrad": torch.optim.Adagrad,
        "sgd": torch.optim.SGD,
    }
    for path, module in model.named_modules():
        if path.endswith("_sharded"):
            apply_optimizer_in_backward(
                kinds[config.sharded], module.parameters(), {"lr": config.sharded_learning_rate}
            )


class Optimizer:
    """All optimizers of a sharded model behind one step and one schedule."""

    def __init__(self, model: DistributedModelParallel, config: OptimizerConfig) -> None:
        self.config = config
        named = {n: p for n, p in in_backward_optimizer_filter(model.named_parameters())}
        self.dense_parameters = list(named.values())
        self.dense = KeyedOptimizerWrapper(named, lambda parameters: _dense(parameters, config))
        self.fused = model.fused_optimizer
        self.all = CombinedOptimizer([self.fused, self.dense])

    def set_rate(self, factor: float) -> None:
        """Scale the learning rates."""
        for group in self.dense.param_groups:
            group["lr"] = self.config.learning_rate * factor
        for group in self.fused.param_groups:
            group["lr"] = self.config.sharded_learning_rate * factor
        if self.fused.param_groups:
            self.fused.step()  # fused kernels take a new rate only here

    def zero_grad(self) -> None:
        """Forget the gradients of dense weights."""
        self.dense.zero_grad()

    def clip(self, norm: float) -> None:
        """Scale dense gradients down to a norm; fused ones are applied before anyone sees them."""
        torch.nn.utils.clip_grad_norm_(self.dense_parameters, norm)

    def step(self) -> None:
        """Move the dense weights; sharded ones moved in the backward pass."""
        self.dense.step()


def _dense(parameters: list[torch.Tensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
    if config.name == "adagrad":
        return torch.optim.Adagrad(parameters, lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, betas=(0.9, config.beta2), weight_decay=decay)
