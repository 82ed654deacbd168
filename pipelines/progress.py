"""What a person and the tracker see of training."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from feature_store.progress import Ticks
from pipelines.printer import printer
from recsys.config import RunConfig
from recsys.figure import looked_at_first
from recsys.runs.fit import Listen
from recsys.tracking import Tracker

console = printer(stderr=True)


class TrainingProgress:
    """A bar with loss and rows/s on a terminal, a line an epoch everywhere, and the tracker."""

    def __init__(self, tracker: Tracker, phase: str, metric: str, protocol: str) -> None:
        self.tracker, self.phase = tracker, phase
        self.metric, self.protocol = metric, protocol
        self._rows = 0
        self._since = time.perf_counter()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} rows/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(phase, total=None, loss=0.0, rate=0.0)
        self._ticks = None if sys.stderr.isatty() else Ticks(phase)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """Move the bar; every twentieth step goes to the tracker."""
        self._rows += rows
        rate = self._rows / max(1e-9, time.perf_counter() - self._since)
        self._bar.update(self._task, completed=step, total=steps, loss=loss, rate=rate)
        if self._ticks is not None:
            self._ticks(step, steps, f" (step {step:,} of {steps:,}, loss {loss:.4f})")
        if step % 20 == 0:
            self.tracker.log_metrics(
                {f"{self.phase}/loss_step": loss, f"{self.phase}/rows_per_second": rate}, step
            )

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Print the epoch's line and log its figures."""
        self._rows, self._since = 0, time.perf_counter()
        measured = (
            f"  validation {self.protocol} {self.metric} {metrics[self.metric]:.4f}"
            if self.metric in metrics
            else ""
        )
        console.print(
            f"{self.phase} epoch {epoch:>3}  loss {metrics['loss']:.4f}{measured}  "
            f"({metrics['seconds']:.1f} s)",
            soft_wrap=True,
        )
        own, judged = {"loss", "seconds"} & metrics.keys(), f"validation/{self.protocol}"
        first = looked_at_first(metrics.keys() - own, self.metric)
        logged = {f"{self.phase}/{name}": metrics[name] for name in own}
        logged |= {f"{judged}/{name}": metrics[name] for name in first}
        self.tracker.log_metrics(logged, step)

    def note(self, text: str) -> None:
        """Print it."""
        console.print(f"{self.phase}: {text}", soft_wrap=True)


def listening(config: RunConfig, tracker: Tracker) -> Listen:
    """Shows and tracks every phase of a run."""
    metric, protocol = config.metric, config.split.short_name
    return lambda phase: TrainingProgress(tracker, phase.name, metric, protocol)
