"""Optimizers: one for what is dense, a fused one for sharded tables, one schedule for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import Adam, in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from feature_store.errors import ConfigError
from recsys.embeddings.tables import Embeddings
from recsys.training.decay import FusedDecay, FusedMiniBatchAware, MiniBatchAware, decay_moved_rows
from recsys.training.evictions import Evictions
from recsys.training.options import OptimizerConfig

_FUSED = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
    "adam": Adam,  # TorchRec's: torch's own has another name for beta2
}


def fuse(model: nn.Module, config: OptimizerConfig, device: str = "cpu") -> None:
    """Give the tables that will be sharded an optimizer that runs in the backward pass.

    Raises ConfigError for a table that will not be sharded, and for Adam on CPUs.
    """
    sharded = []
    for module in model.modules():
        if not isinstance(module, EmbeddingCollection | EmbeddingBagCollection):
            continue
        for weights, parameter in module.named_parameters():
            table = weights.split(".")[-2]
            name, rate = config.fused(table)
            if name == "adam" and device == "cpu":
                raise ConfigError(
                    f"table {table} is sharded and cannot be trained by fused Adam on CPUs, which "
                    "have no such kernel: choose trainer.optimizer.sharded = 'rowwise_adagrad' or "
                    "'adagrad', or replicate the table with embeddings.shard_above_mb"
                )
            options = {"lr": rate} | ({"beta2": config.beta2} if name == "adam" else {})
            apply_optimizer_in_backward(_FUSED[name], [parameter], options)
            sharded.append(table)
    for table in config.tables:
        if table not in sharded:
            there = f"sharded are: {', '.join(sharded)}" if sharded else "none is sharded"
            raise ConfigError(f"trainer.optimizer.tables.{table}: no sharded table; {there}")


class Optimizer:
    """All optimizers of a sharded model behind one step and one schedule."""

    def __init__(self, model: DistributedModelParallel, config: OptimizerConfig) -> None:
        self.config = config
        dense = in_backward_optimizer_filter(model.named_parameters())
        named = {name: weights for name, weights in dense if weights.requires_grad}
        self.dense_parameters = list(named.values())
        self.tables = [weights for weights in _tables(model) if weights.requires_grad]
        self.dense = KeyedOptimizerWrapper(
            named, lambda parameters: _dense(parameters, self.tables, config)
        )
        self.fused = model.fused_optimizer
        self.all = CombinedOptimizer([self.fused, self.dense])
        self._rates = [group["lr"] for group in self.fused.param_groups]
        self._kernels = _kernels(model)
        self.evictions = Evictions(model, self.fused, self.dense)
        decay = config.weight_decay
        self._decays = [FusedDecay(kernel, decay) for kernel in self._kernels] if decay else []
        self._aware: list[MiniBatchAware | FusedMiniBatchAware] = []
        if by_count := config.mini_batch_aware_decay:
            if self.evictions:
                raise ConfigError(
                    "trainer.optimizer.mini_batch_aware_decay counts how often an epoch reads each "
                    "row, and rows of the layout 'evicting' go from id to id: set it to 0, or "
                    "choose another embeddings.layout"
                )
            embeddings = [module for module in model.modules() if isinstance(module, Embeddings)]
            self._aware += [MiniBatchAware(module, by_count) for module in embeddings]
            self._aware += [FusedMiniBatchAware(kernel, by_count) for kernel in self._kernels]

    def set_rate(self, factor: float) -> None:
        """Scale the learning rates."""
        for group in self.dense.param_groups:
            group["lr"] = self.config.learning_rate * factor
        for group, rate in zip(self.fused.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        if self._rates:
            self.fused.step()  # fused kernels take a new rate only here

    def make_state(self) -> None:
        """Make the state that dense optimizers make at their first step, all zeros.

        What is not there could silently not be restored.
        """
        self.set_rate(0.0)  # the step that makes it moves nothing
        self.dense.init_state({})
        self.dense.zero_grad()
        for state in self.dense.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.zero_()

    def count_steps(self, step: int) -> None:
        """Tell fused kernels how many steps were made: Adam's correct for it."""
        for kernel in self._kernels:
            kernel.set_optimizer_step(step)

    @contextmanager
    def counting(self, summed: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """What is read within is an epoch, as mini-batch-aware regularisation counts it: `summed`
        adds up a tensor of all processes."""
        for aware in self._aware:
            aware.counting = True
        try:
            yield
        finally:
            for aware in self._aware:
                aware.counting = False
        for aware in self._aware:
            aware.counted(summed)

    def zero_grad(self) -> None:
        """Forget the gradients of dense weights."""
        self.dense.zero_grad()

    def clip(self, norm: float) -> None:
        """Scale dense gradients down to a norm; fused ones are applied before anyone sees them."""
        torch.nn.utils.clip_grad_norm_(self.dense_parameters, norm)

    def step(self) -> None:
        """Move the dense weights; sharded ones moved in the backward pass."""
        decay = self.config.weight_decay
        if decay:
            rate = self.dense.param_groups[0]["lr"] if self.config.name == "adamw" else None
            for weights in self.tables:
                decay_moved_rows(weights, decay, rate)
        for aware in self._aware:
            aware.step(self.dense.param_groups[0]["lr"])
        self.dense.step()
        for decayed in self._decays:
            decayed.step()


def _kernels(model: nn.Module) -> list[SplitTableBatchedEmbeddingBagsCodegen]:
    """Of the sharded tables; TorchRec keeps them where `modules()` does not look."""
    kept = [lookup for module in model.modules() for lookup in getattr(module, "_lookups", ())]
    roots = [model, *(lookup for lookup in kept if isinstance(lookup, nn.Module))]
    modules = dict.fromkeys(module for root in roots for module in root.modules())
    return [m for m in modules if isinstance(m, SplitTableBatchedEmbeddingBagsCodegen)]


def _tables(model: nn.Module) -> list[torch.Tensor]:
    """Weights of the replicated embedding tables."""
    return [
        weights
        for module in model.modules()
        if isinstance(module, Embeddings)
        for weights in module.tables.parameters()
    ]


def _dense(
    parameters: list[torch.Tensor], tables: list[torch.Tensor], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Weight decay of `tables` is not its own: see `Optimizer.step`."""
    rate, decay = config.learning_rate, config.weight_decay
    apart = {id(weights) for weights in tables} if decay else set()
    # the first may be empty: all weights may lie in sharded tables
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in apart]}]
    if apart:
        of_tables = [p for p in parameters if id(p) in apart]
        groups.append({"params": of_tables, "weight_decay": 0.0})
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, weight_decay=decay)
    if config.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, betas=(0.9, config.beta2), weight_decay=decay, fused=True)
