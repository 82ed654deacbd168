"""The one loop for every model that learns by gradient."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from feature_store.errors import ConfigError, DataError, RecsysError
from recsys.data.batch import Batch
from recsys.data.reader import Reader
from recsys.distributed import Group
from recsys.figure import Figure
from recsys.model import TrainedModel, answering
from recsys.training import checkpoint
from recsys.training.background import Writer
from recsys.training.growth import describe, same_optimizers, unwrap
from recsys.training.memory import kept_memory
from recsys.training.optimizers import Optimizer, fuse
from recsys.training.options import TrainerConfig
from recsys.training.sharding import shard

Validate = Callable[[TrainedModel], dict[str, float]]


class Listener(Protocol):
    """Who is told of progress: a progress bar, a tracker, a test."""

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """After every step; `rows` is the number of rows over all processes."""

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """After every epoch, with whatever was measured."""

    def note(self, text: str) -> None:
        """Something that people should know."""


@dataclass
class Progress:
    """Where training stands; saved with every checkpoint."""

    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    bad_validations: int = 0
    stopped: bool = False
    weight_total: float = 0.0
    loss_total: float = 0.0
    loss_weight: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    __pydantic_config__ = ConfigDict(extra="forbid")


_PROGRESS = TypeAdapter(Progress)


class Trainer:
    """Trains `model` on `reader` and leaves checkpoints in `folder`.

    `validate` measures the model after an epoch; without it the last epoch is the best. `metric`
    is what it is judged by where the config names none. `planned_epochs` is the horizon of the
    learning-rate schedule where it is not `epochs`; `start_from` is a checkpoint whose weights
    the training starts from.
    """

    def __init__(
        self,
        model: TrainedModel,
        reader: Reader,
        config: TrainerConfig,
        group: Group,
        folder: Path,
        *,
        metric: str = "NDCG@10",
        validate: Validate | None = None,
        listener: Listener | None = None,
        planned_epochs: int | None = None,
        start_from: Path | None = None,
    ) -> None:
        self.config = config
        self.reader = reader
        self.group = group
        self.folder = folder
        self.metric = config.metric or metric
        self.validate = validate
        self.listener = listener
        self.start_from = start_from
        self.progress = Progress()
        fuse(model, config.optimizer, group.device.type)
        self.model = shard(model, group, config.optimizer)
        self.optimizer = Optimizer(self.model, config.optimizer)
        self.planned_steps = (planned_epochs or config.epochs) * len(reader)
        self.writer = Writer(
            folder, group, keep=config.keep, copy_mb=config.background_checkpoint_mb
        )
        self.optimizer.evictions.settle = self.writer.settle
        self._reserved = False
        self._description = describe(self.model, self.optimizer)

    @property
    def last_step(self) -> int:
        """The step that training ends with unless it stops early."""
        left = (self.config.epochs - self.reader.epoch) * len(self.reader)
        end = self.progress.step - self.reader.state_dict()["next_batch"] + left
        return min(end, self.config.steps or end)

    def fit(self, *, resume: bool = False) -> Progress:
        """Train to the end, or go on from the newest checkpoint when `resume` is set.

        Raises RecsysError when the loss is not finite: the run cannot be saved by going on.
        """
        last = checkpoint.newest(self.folder) if resume else None
        if resume:
            for name in checkpoint.torn(self.folder):
                self._note(f"{name} was not whole when the program stopped, and is passed over")
            self.group.barrier()  # all have seen what was not whole
            if self.group.leads:
                checkpoint.prune(self.folder, self.config.keep)
        if last is not None:
            self._resume(last)
            self._note(self._standing())
        elif self.start_from is not None:
            self._start(self.start_from)
        elif resume:
            self._note("there is no checkpoint to go on from: the training begins")
        try:
            if self.config.optimizer.mini_batch_aware_decay and not self._over:
                self._count_rows()
            with kept_memory():
                while not (self._over or self.progress.stopped):
                    self._epoch()
        finally:
            try:
                self.writer.wait()
            finally:  # a signal ends the wait, but no writing that has begun
                self.writer.drain()
        return self.progress

    def _standing(self) -> str:
        """Where a training that was resumed goes on, or why nothing is left of it."""
        state, config = self.progress, self.config
        step, epoch = f"step {state.step:,}", self.reader.epoch
        if state.stopped:
            return (
                f"nothing is left to train after {step}: trainer.patience = {config.patience} "
                "validations brought nothing better"
            )
        if self._enough:
            return f"nothing is left to train after {step}: trainer.steps = {config.steps:,}"
        if self._over:
            return f"nothing is left to train after {step}: trainer.epochs = {config.epochs}"
        return f"goes on from {step}, in epoch {epoch + 1} of {config.epochs}"

    @property
    def _enough(self) -> bool:
        return self.config.steps is not None and self.progress.step >= self.config.steps

    @property
    def _over(self) -> bool:
        return self._enough or self.reader.epoch >= self.config.epochs

    @property
    def _unwrapped(self) -> TrainedModel:
        model = unwrap(self.model)
        assert isinstance(model, TrainedModel)
        return model

    def _epoch(self) -> None:
        state, config = self.progress, self.config
        self.model.train()
        start = time.perf_counter()
        epoch, goes_on = self.reader.epoch + 1, self.reader.state_dict()["next_batch"] > 0
        self._unwrapped.begin_epoch(epoch, goes_on)
        for batch in self.reader:
            self.step(batch)
            if not self._reserved:  # once the optimizers have made their state
                self.writer.reserve(self._tensors())
                self._reserved = True
            if self._enough:
                break
            every = config.checkpoint_every_steps
            ends = self.reader.state_dict()["next_batch"] == len(self.reader)  # saved below
            if every and state.step % every == 0 and not ends:
                self._save()
        self._unwrapped.end_epoch(epoch)
        self._end_epoch(time.perf_counter() - start)

    def _count_rows(self) -> None:
        """Read an epoch without learning from it, to know how often each row is read."""
        position = self.reader.state_dict()
        self.reader.load_state_dict({**position, "epoch": 0, "next_batch": 0})
        self._unwrapped.begin_epoch(1, goes_on=self.progress.step > 0)
        with answering(self._unwrapped), self.optimizer.counting(self.group.sum):
            for step, batch in enumerate(self.reader):
                self.model(self._here(batch), step)
        self.reader.load_state_dict(position)

    def _here(self, batch: Batch) -> Batch:
        return batch.to(self.group.device) if self.group.device.type != "cpu" else batch

    def step(self, batch: Batch) -> None:
        """One step of all optimizers on a batch, which is this process's part of the whole.

        Raises RecsysError when the loss is not finite.
        """
        state, group = self.progress, self.group
        self.optimizer.set_rate(self.config.optimizer.factor(state.step, self.planned_steps))
        batch = self._here(batch)
        autocast = (
            torch.autocast(group.device.type, torch.bfloat16)
            if self.config.precision == "bf16"
            else nullcontext()
        )
        with autocast:
            loss = self.model(batch, state.step)
        sums = group.sum(torch.stack([loss.total.detach().double(), loss.weight.double()]))
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
        self.writer.settle()  # tables move in the backward pass
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
        finished = self.reader.state_dict()["next_batch"] == 0
        epoch = self.reader.epoch if finished else self.reader.epoch + 1
        metrics = {"loss": state.loss_total / max(state.loss_weight, 1.0), "seconds": seconds}
        state.loss_total = state.loss_weight = 0.0
        over = self._over
        if self.validate is not None and (epoch % config.validate_every == 0 or over):
            metrics |= self._validate()
            value = metrics[self.metric]
            if self._better(value):
                state.best, state.best_epoch, state.best_step = value, epoch, state.step
                state.bad_validations = 0
            else:
                state.bad_validations += 1
                state.stopped = state.bad_validations >= config.patience
        state.history.append({"epoch": epoch, "step": state.step, **metrics})
        if self.listener is not None:
            self.listener.validated(epoch, state.step, metrics)
        if self.validate is None:
            state.best_epoch, state.best_step = epoch, state.step
        self._save()

    def _better(self, value: float) -> bool:
        best = self.progress.best
        if best is None or value != value:
            return value == value  # NaN is no figure
        return Figure.parse(self.metric).improves(value, best)

    def _validate(self) -> dict[str, float]:
        assert self.validate is not None
        model = self._unwrapped
        model.eval()
        metrics = self.validate(model)
        model.train()
        if self.metric not in metrics:
            raise ConfigError(
                f"trainer.metric = {self.metric!r} is not measured; "
                f"choose one of: {', '.join(metrics)}"
            )
        return metrics

    def _save(self) -> None:
        state: dict[str, Any] = {
            "progress": copy.deepcopy(self.progress.__dict__),
            "reader": self.reader.state_dict(),
            "model": self._description,
            checkpoint.BEST: self.progress.best_step or None,
        }
        self.writer.save(self.progress.step, self._tensors(), state)

    def _tensors(self) -> checkpoint.Tensors:
        return checkpoint.tensors_of(self.model, self.optimizer, self.group)

    def _resume(self, folder: Path) -> None:
        state, changes = checkpoint.load(
            folder,
            self.model,
            self.optimizer,
            self.group,
            allow_features=self.config.allow_feature_changes,
        )
        try:
            _PROGRESS.validate_python(state.get("progress"))
            self.progress = Progress(**state["progress"])
        except ValidationError:
            raise DataError(
                f"{folder} was written by another version: train without --resume"
            ) from None
        # patience is this training's, which may have more of it than the one that stopped
        self.progress.stopped = self.progress.bad_validations >= self.config.patience
        self.optimizer.count_steps(self.progress.step)
        for text in changes.notes:
            self._note(text)
        same = self.reader.load_state_dict(state["reader"])
        if not same:
            self._note("the examples are others than before: the epoch begins anew")
        differs = not same or changes.added or changes.dropped
        if differs and not self._over:
            # what was measured before was another model, or on other events
            self.progress.best, self.progress.best_epoch, self.progress.best_step = None, 0, 0
            self.progress.bad_validations, self.progress.stopped = 0, False

    def _start(self, folder: Path) -> None:
        """Take another training's weights, and its optimizers' state where it fits."""
        saved = checkpoint.read_state(folder)["model"]
        wraps = self._description["wraps"]
        submodule = wraps if saved.get("wraps", "") != wraps else ""
        fits = not submodule and same_optimizers(saved, self._description)
        state, changes = checkpoint.load(
            folder,
            self.model,
            self.optimizer if fits else None,
            self.group,
            allow_features=self.config.allow_feature_changes,
            random=False,
            submodule=submodule,
        )
        if fits:
            self.optimizer.count_steps(state["progress"]["step"])
        self._note(f"starts from {folder}" + ("" if fits else ", without its optimizer state"))
        for text in changes.notes:
            self._note(text)

    def _note(self, text: str) -> None:
        if self.listener is not None:
            self.listener.note(text)
