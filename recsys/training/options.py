"""Options of training."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from feature_store.options import Options
from recsys.options import changed

Fused = Literal["rowwise_adagrad", "adagrad", "sgd", "adam"]


class TableOptimizer(Options):
    """How one sharded table moves; what is not set is as for the others."""

    name: Fused | None = Field(None, description="How its rows move.")
    learning_rate: float | None = Field(None, gt=0, description="Length of its steps.")


class OptimizerConfig(Options):
    """How weights move."""

    name: Literal["adam", "adamw", "adagrad", "sgd"] = Field(
        "adam", description="How weights move, but those of sharded tables."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Length of a step, but of sharded tables.")
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="L2 penalty; apart from the gradient by adamw and in sharded tables. Of tables "
        "it reaches the rows that a batch reads, and no others.",
    )
    mini_batch_aware_decay: float = Field(
        0.0,
        ge=0,
        description="Of tables, apart from the gradient: a row that a batch reads shrinks by the "
        "rate times this over the row's reads in an epoch, which are counted first.",
    )
    beta2: float = Field(
        0.999, gt=0, lt=1, description="Second moment's decay of Adam, fused ones included."
    )
    sharded: Fused = Field(
        "rowwise_adagrad", description="Fused optimizer of sharded tables; adam on GPUs alone."
    )
    sharded_learning_rate: float = Field(
        0.02, gt=0, description="Length of a step of sharded tables."
    )
    tables: dict[str, TableOptimizer] = Field(
        {}, description="Sharded tables with an optimizer or rate of their own."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="After warm-up, over the planned steps, down to `final`."
    )
    final: float = Field(0.0, ge=0, le=1, description="Share of the rate left at the end.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = {self.name, self.sharded, *(table.name for table in self.tables.values())}
        if not names & {"adam", "adamw"} and changed(self, "beta2"):
            raise ValueError(f"beta2 is Adam's, and name = {self.name!r} has no use for it")
        if self.schedule == "constant" and changed(self, "final"):
            raise ValueError("final goes with a schedule that falls: 'linear' or 'cosine'")
        return self

    def fused(self, table: str) -> tuple[Fused, float]:
        """The optimizer of a sharded table, and its learning rate."""
        own = self.tables.get(table, TableOptimizer())
        return own.name or self.sharded, own.learning_rate or self.sharded_learning_rate

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


class PhaseConfig(Options):
    """One of several trainings of a run; what is not set is as for all of them."""

    name: str = Field(description="What is learned: one of the model's phases.")
    epochs: int | None = Field(None, ge=1, description="At most this many passes.")
    steps: int | None = Field(None, ge=1, description="At most this many steps.")
    patience: int | None = Field(None, ge=1, description="Validations without improvement.")
    metric: str | None = Field(None, description="Validation metric that chooses its best epoch.")
    learning_rate: float | None = Field(None, gt=0, description="Length of a step.")


class TrainerConfig(Options):
    """How long, how fast, and what counts as best."""

    epochs: int = Field(20, ge=1, description="At most this many passes over the examples.")
    steps: int | None = Field(None, ge=1, description="Stop after this many steps at the latest.")
    validate_every: int = Field(1, ge=1, description="Epochs between validations.")
    metric: str | None = Field(
        None,
        description="Validation metric that chooses the best epoch; by default NDCG@10 of "
        "retrievers and AUC of rankers.",
    )
    patience: int = Field(
        5, ge=1, description="Stop after this many validations without improvement."
    )
    phases: tuple[PhaseConfig, ...] = Field(
        (),
        description="Trainings one after the other, each from the best weights of the one before, "
        "of a model that learns in several ways; by default it is one.",
    )
    refit: bool = Field(
        False,
        description="Once the epoch is chosen, train anew for as many epochs on training and "
        "validation events together, as the model that serves the test would be.",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    clip_norm: float | None = Field(None, gt=0, description="Norm that gradients are scaled to.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="What layers compute in; weights are kept in fp32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train; auto takes a GPU where there is one."
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="Besides the checkpoint after every validation."
    )
    keep: int = Field(2, ge=1, description="Newest checkpoints to keep, besides the best.")
    background_checkpoint_mb: float = Field(
        2048,
        ge=0,
        description="State up to this size per process is copied and written beside the training; "
        "larger state is written while the training waits.",
    )
    start_from: Path | None = Field(
        None, description="A run whose best weights this one starts from, and whose ids it keeps."
    )
    since: datetime | None = Field(
        None, description="Train on events from this moment (UTC) on; earlier ones are history."
    )
    lead: int = Field(
        1,
        ge=1,
        description="With `since` a sequence of training begins so many events before the first "
        "from then on: more keep what was learned of long histories.",
    )
    allow_feature_changes: bool = Field(
        False, description="Go on from weights of a model with other features: by name, + and -."
    )

    def of_phase(self, phase: PhaseConfig) -> TrainerConfig:
        """These options as one of the phases has them."""
        own = phase.model_dump(exclude={"name", "learning_rate"}, exclude_none=True)
        if phase.learning_rate is not None:
            rate = {"learning_rate": phase.learning_rate}
            own["optimizer"] = self.optimizer.model_copy(update=rate)
        return self.model_copy(update=own)
