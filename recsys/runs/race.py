"""A race of retrievers over one log: which of them suits it, by validation, within a budget.

Those in closed form are fitted once. Those that learn by gradient share the time by successive
halving (Jamieson & Talwalkar, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS 2016): all rounds have equal time, and after each the better half goes on.
Nobody drops out for being behind what needs no training.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from feature_store.errors import ConfigError, DataError, RecsysError
from feature_store.protocols import VALIDATION
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.model import Model
from recsys.retrievers.base import Retriever
from recsys.runs.build import build_model, fit, is_trained
from recsys.runs.evaluators import judge
from recsys.runs.folder import RunFolder
from recsys.runs.learn import trainer_of
from recsys.runs.prepare import prepare
from recsys.runs.search_space import for_retriever
from recsys.runs.work import Work
from recsys.training.trainer import Trainer

MINUTES = 30.0
"""The budget where `tune.timeout` names none."""


@dataclass
class Entry:
    """A retriever in the race, and how it is doing.

    Attributes:
        name: What it is called: the retriever, numbered where it races with other options too.
        config: The run that it would be the model of.
        examples: What it learns from.
        figures: Validation figures of its best epoch, or of its fit.
        users: Rows [U] of the users who were judged then, and the figure of the race of each of
            them, `values` [U], where users have such a figure.
        epochs: How many it has trained; `best_epoch` is the best of them.
        rounds: How many it took part in.
        seconds: What learning took, validation included.
        reason: Why it could not run.
    """

    name: str
    config: RunConfig
    examples: Examples
    figures: dict[str, float] = field(default_factory=dict)
    users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    epochs: int = 0
    best_epoch: int = 0
    rounds: int = 0
    seconds: float = 0.0
    reason: str | None = None

    @property
    def value(self) -> float:
        """The figure that is compared; minus infinity where there is none."""
        value = self.figures.get(self.config.metric, math.nan)
        return -math.inf if math.isnan(value) else value


class Watch(Protocol):
    """Who is told how the race stands."""

    def went_on(self, entry: Entry) -> None:
        """After every fit and every epoch, and where one failed."""


def race(work: Work, watch: Watch) -> list[Entry]:
    """Let the retrievers of `tune.retrievers` race; the best comes first, those that failed last.

    Raises DataError where none of them could run, or there are no validation events, and
    ConfigError for one whose training has phases.
    """
    entries = _entries(work.config, work.files)
    runners = [_Runner(work, entry, watch) for entry in entries]
    for runner in runners:
        if not runner.learns:
            runner.fit()
    minutes = work.config.tune.timeout or MINUTES
    halve([runner for runner in runners if runner.learns], 60 * minutes)
    shutil.rmtree(work.files.trial, ignore_errors=True)
    ranked = sorted(entries, key=lambda entry: (entry.reason is not None, -entry.value))
    if ranked[0].reason is not None:
        raise DataError(f"no retriever could run: {ranked[0].name}: {ranked[0].reason}")
    return ranked


class Racer(Protocol):
    """Who gets better with time."""

    @property
    def value(self) -> float:
        """How good it is by now."""

    @property
    def over(self) -> bool:
        """Whether no more time would help."""

    def train(self, seconds: float) -> None:
        """Learn for that long."""

    def leave(self) -> None:
        """Give back what learning holds: there will be no more time."""


def halve(racing: Sequence[Racer], seconds: float) -> None:
    """Let them learn by successive halving.

    n of them race in log2(n) + 1 rounds, until one is left alone; what a round leaves of its time
    goes to those after it.
    """
    deadline = time.monotonic() + seconds
    rounds = math.ceil(math.log2(len(racing))) + 1 if racing else 0
    for left in range(rounds, 0, -1):
        share = (deadline - time.monotonic()) / left / max(1, len(racing))
        for racer in racing:
            racer.train(share)
        racing = sorted((r for r in racing if not r.over), key=lambda racer: -racer.value)
        kept = math.ceil(len(racing) / 2)
        for racer in racing[kept:]:
            racer.leave()
        racing = racing[:kept]


def _entries(config: RunConfig, files: RunFolder) -> list[Entry]:
    """Retrievers with their examples, which those share that read the same.

    The config's own retriever races with its own options, unless others are given.
    """
    entries: list[Entry] = []
    made: dict[Any, Examples] = {}
    for chosen in config.tune.retrievers:
        own, options = config.retriever, chosen
        if own is not None and own.name == chosen.name and chosen == type(chosen)(name=own.name):
            options = own
        swapped, _ = for_retriever(config, chosen.name)
        if swapped.trainer.phases:
            raise ConfigError(
                f"trainer.phases: {chosen.name} races by one training: leave its phases out, or "
                "let it be found by `recsys tune` without tune.retrievers"
            )
        runs_as = swapped.model_copy(update={"retriever": options})
        name = _unused(chosen.name, [entry.name for entry in entries])
        where = files.search_of(name).path
        moved = {"output": where.parent, "name": where.name, "store": config.store_folder}
        length = getattr(options, "max_length", None) if runs_as.rows_of.per == "event" else None
        key = (repr(runs_as.rows_of), length)
        if key not in made:
            made[key] = prepare(runs_as.model_copy(update=moved))
        entries.append(Entry(name, runs_as, made[key]))
    if entries and not entries[0].examples.summary.rows.get(VALIDATION):
        raise DataError(
            f"the {entries[0].examples.summary.protocol} split leaves no validation events to "
            "race on: see [split]"
        )
    return entries


class _Runner:
    """What makes an entry learn, and judges it."""

    def __init__(self, work: Work, entry: Entry, watch: Watch) -> None:
        self.entry, self._work, self._watch = entry, work, watch
        self.learns = is_trained(entry.config)
        self._judge = judge(entry.config, entry.examples, VALIDATION, work.group)
        self._checkpoints = work.files.trial / entry.name
        self._trainer: Trainer | None = None

    @property
    def value(self) -> float:
        """How good it is by now."""
        return self.entry.value

    @property
    def over(self) -> bool:
        """Whether no more time would help."""
        stopped = self._trainer is not None and self._trainer.progress.stopped
        enough = self.entry.epochs >= self.entry.config.trainer.epochs
        return not self.learns or self.entry.reason is not None or stopped or enough

    def fit(self) -> None:
        """Learn in closed form."""
        self._attempt(self._fit)

    def train(self, seconds: float) -> None:
        """Train as many epochs as begin within that time; the very first one whatever it takes."""
        self.entry.rounds += 1
        end = time.monotonic() + seconds
        while not self.over and (self.entry.epochs == 0 or time.monotonic() < end):
            self._attempt(self._epoch)

    def leave(self) -> None:
        """Give back what the training holds."""
        self._trainer = None
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    def _attempt(self, step: Callable[[], None]) -> None:
        started = time.perf_counter()
        try:
            step()
        except RecsysError as error:
            self.entry.reason = str(error)
        self.entry.seconds += time.perf_counter() - started
        self._watch.went_on(self.entry)

    def _fit(self) -> None:
        entry = self.entry
        model = build_model(entry.config, entry.examples)
        fit(model, entry.config.model.name, entry.examples)
        self._validate(model.to(self._work.group.device))

    def _epoch(self) -> None:
        if self._trainer is None:
            shutil.rmtree(self._checkpoints, ignore_errors=True)  # of a race that was killed
            self._trainer = trainer_of(
                self.entry.config,
                self.entry.examples,
                self._work.group,
                self._checkpoints,
                validate=self._validate,
                planned_epochs=self.entry.config.trainer.epochs,
            )
        trainer = self._trainer
        trainer.config = trainer.config.model_copy(update={"epochs": self.entry.epochs + 1})
        progress = trainer.fit()
        trainer.start_from = None  # it has started
        self.entry.epochs, self.entry.best_epoch = len(progress.history), progress.best_epoch

    def _validate(self, model: Model) -> dict[str, float]:
        result, metric = self._judge(cast(Retriever, model)), self.entry.config.metric
        figures = result.metrics
        if not figures[metric] <= self.entry.value:  # the best, or the first that is a number
            entry = self.entry
            entry.figures, entry.users = figures, result.users["user"]
            entry.values = result.users.get(metric, np.zeros(0))
        return figures


def _unused(name: str, taken: list[str]) -> str:
    """The name, numbered from the second on."""
    numbered = (f"{name}_{number}" for number in range(2, len(taken) + 3))
    return next(free for free in (name, *numbered) if free not in taken)
