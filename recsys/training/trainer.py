"""The one loop for every model that learns by gradient."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field

from feature_store.errors import ConfigError, DataError, RecsysError
from recsys.batch import Batch
from recsys.optimizers import Optimizer, OptimizerConfig, fuse
from recsys.reader import Reader
from recsys.retrievers.base import TrainedRetriever
from recsys.training import checkpoint
from recsys.training.distributed import Group, shard

Validate = Callable[[TrainedRetriever], dict[str, float]]


class TrainerConfig(BaseModel):
    """How long, how fast, and what counts as best."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(20, ge=1, description="At most this many passes over the examples.")
    steps: int | None = Field(None, ge=1, description="Stop after this many steps at the latest.")
    validate_every: int = Field(1, ge=1, description="Epochs between validations.")
    metric: str = Field("NDCG@10", description="Validation metric that chooses the best epoch.")
    patience: int = Field(
        5, ge=1, description="Stop after this many validations without improvement."
    )
    refit: bool = Field(
        False,
        description="Once the epoch is chosen, train anew for as many epochs on training and "
        "validation events together, as the model that serves the test would be.",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    clip_norm: float | None = Field(None, gt=0, description="Norm that gradients are scaled to.")
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="Besides the checkpoint after every validation."
    )
    keep: int = Field(2, ge=1, description="Newest checkpoints to keep.")


class Listener(Protocol):
    """Who is told of progress: a progress bar, a tracker, a test."""

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """After every step; `rows` is the number of rows over all processes."""

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """After every epoch, with whatever was measured."""


@dataclass
class Progress:
    """Where training stands; saved with every checkpoint."""

    step: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    bad_validations: int = 0
    stopped: bool = False
    weight_total: float = 0.0
    loss_total: float = 0.0
    loss_weight: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains `model` on `reader` and leaves `best` and `step-*` checkpoints in `folder`.

    `validate` measures the model after an epoch; without it the last epoch is the best.
    `planned_epochs` is the horizon of the learning-rate schedule where it is not `epochs`.
    """

    def __init__(
        self,
        model: TrainedRetriever,
        reader: Reader,
        config: TrainerConfig,
        group: Group,
        folder: Path,
        *,
        validate: Validate | None = None,
        listener: Listener | None = None,
        planned_epochs: int | None = None,
    ) -> None:
        self.config = config
        self.reader = reader
        self.group = group
        self.folder = folder
        self.validate = validate
        self.listener = listener
        self.progress = Progress()
        fuse(model, config.optimizer)
        self.model = shard(model, group)
        self.optimizer = Optimizer(self.model, config.optimizer)
        self.planned_steps = (planned_epochs or config.epochs) * len(reader)

    @property
    def last_step(self) -> int:
        """The step that training ends with unless it stops early."""
        steps = self.config.epochs * len(self.reader)
        return min(steps, self.config.steps or steps)

    def fit(self, *, resume: bool = False) -> Progress:
        """Train to the end, or go on from the newest checkpoint when `resume` is set.

        Raises RecsysError when the loss is not finite: the run cannot be saved by going on.
        """
        found = checkpoint.latest(self.folder) if resume else None
        if found is not None:
            self._load(found)
        while self.progress.step < self.last_step and not self.progress.stopped:
            self._epoch()
        return self.progress

    def _epoch(self) -> None:
        state, config = self.progress, self.config
        self.model.train()
        start = time.perf_counter()
        for batch in self.reader:
            self._step(batch)
            over = state.step >= self.last_step
            every = config.checkpoint_every_steps
            ends = self.reader.state_dict()["next_batch"] == len(self.reader)  # saved below
            if every and state.step % every == 0 and not (over or ends):
                self._save(self.folder / f"step-{state.step:09d}")
            if over:
                break
        self._end_epoch(time.perf_counter() - start)

    def _step(self, batch: Batch) -> None:
        state, group = self.progress, self.group
        self.optimizer.set_rate(self.config.optimizer.factor(state.step, self.planned_steps))
        batch = batch.to(group.device) if group.device.type != "cpu" else batch
        autocast = (
            torch.autocast(group.device.type, torch.bfloat16)
            if self.config.precision == "bf16"
            else nullcontext()
        )
        with autocast:
            loss = self.model(batch, state.step)
        sums = group.sum(torch.stack([loss.total.detach(), loss.weight.to(loss.total.dtype)]))
        total, weight = sums.tolist()
        if total != total or total in (float("inf"), float("-inf")):
            raise RecsysError(
                f"the loss is {total} at step {state.step}: lower "
                "trainer.optimizer.learning_rate or set trainer.clip_norm"
            )
        # Divided by the mean weight of batches so far, not by its own, so that a batch of short
        # sequences moves the weights no further than its few terms deserve. Gradients are
        # averaged over processes: times their number, that is the sum over the whole batch.
        state.weight_total += weight
        mean_weight = max(state.weight_total / (state.step + 1), 1.0)
        self.optimizer.zero_grad()
        (loss.total * (group.world / mean_weight)).backward()
        if self.config.clip_norm is not None:
            self.optimizer.clip(self.config.clip_norm)
        self.optimizer.step()
        state.step += 1
        state.loss_total += total
        state.loss_weight += weight
        if self.listener is not None:
            rows = len(batch) * group.world
            self.listener.step(state.step, self.last_step, total / max(weight, 1.0), rows)

    def _end_epoch(self, seconds: float) -> None:
        state, config = self.progress, self.config
        epoch = -(-state.step // len(self.reader))
        metrics = {"loss": state.loss_total / max(state.loss_weight, 1.0), "seconds": seconds}
        state.loss_total = state.loss_weight = 0.0
        over = state.step >= self.last_step
        if self.validate is not None and (epoch % config.validate_every == 0 or over):
            metrics |= self._validate()
            value = metrics[config.metric]
            if value > state.best:
                state.best, state.best_epoch, state.bad_validations = value, epoch, 0
                self._save(self.folder / "best", with_optimizer=False)
            else:
                state.bad_validations += 1
                state.stopped = state.bad_validations >= config.patience
        state.history.append({"epoch": epoch, "step": state.step, **metrics})
        if self.listener is not None:
            self.listener.validated(epoch, state.step, metrics)
        if self.validate is None and over:
            state.best_epoch = epoch
            self._save(self.folder / "best", with_optimizer=False)
        self._save(self.folder / f"step-{state.step:09d}")

    def _validate(self) -> dict[str, float]:
        assert self.validate is not None
        retriever = self.model.module
        while not isinstance(retriever, TrainedRetriever):  # DDP wraps the model once more
            retriever = retriever.module
        retriever.eval()
        metrics = self.validate(retriever)
        retriever.train()
        if self.config.metric not in metrics:
            raise ConfigError(
                f"trainer.metric = {self.config.metric!r} is not measured; "
                f"choose one of: {', '.join(metrics)}"
            )
        return metrics

    def _save(self, folder: Path, *, with_optimizer: bool = True) -> None:
        state: dict[str, Any] = {
            "progress": self.progress.__dict__,
            "reader": self.reader.state_dict(),
        }
        optimizer = self.optimizer if with_optimizer else None
        checkpoint.save(folder, self.model, optimizer, state, self.group)
        if self.group.leads:
            checkpoint.prune(self.folder, self.config.keep)

    def _load(self, folder: Path) -> None:
        state = checkpoint.load(folder, self.model, self.optimizer, self.group)
        known = {f.name for f in fields(Progress)}
        if set(state["progress"]) != known:
            raise DataError(f"{folder} was written by another version: train without --resume")
        self.progress = Progress(**state["progress"])
        self.reader.load_state_dict(state["reader"])
