"""What people see of a search while it runs."""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from feature_store.progress import stage
from pipelines.progress import console
from recsys.report.search_chart import labels_of, text_of
from recsys.tuning.study import Report, Trial


class TuningProgress:
    """A bar over trials with the best figure so far, and a line a trial."""

    def __init__(self, trials: int, metric: str, done: int, best: Trial | None) -> None:
        self.metric, self.best, self._trials = metric, best, trials
        self._bar = Progress(
            TextColumn("tune"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials  {task.fields[best]}  {task.fields[now]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(
            "tune", total=trials, completed=done, best=self._best_text(), now=""
        )

    def __enter__(self) -> TuningProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def epoch(self, report: Report, epoch: int, figure: float) -> None:
        """Show how the trial is doing, and report it."""
        self._bar.update(self._task, now=f"epoch {epoch}: {figure:.4f}")
        report(epoch, figure)

    def trying(self, number: int, values: dict[str, Any]) -> AbstractContextManager[None]:
        """Without a bar, say that a trial is on where it lasts."""
        if not self._bar.disable:
            return nullcontext()
        return stage(f"trial {number} of {self._trials}, {_told(values)}")

    def ended(self, trial: Trial) -> None:
        """Move the bar and print the trial's line."""
        best = -math.inf if self.best is None or self.best.value is None else self.best.value
        if trial.value is not None and trial.value > best:
            self.best = trial
        self._bar.update(self._task, advance=1, best=self._best_text(), now="")
        outcome = trial.state if trial.value is None else f"{self.metric} {trial.value:.4f}"
        values = _told(trial.values)
        reason = f"  ({trial.reason})" if trial.reason else ""
        console.print(
            f"trial {trial.number:>3}  {outcome}  {self._best_text()}  {values}{reason}  "
            f"({trial.seconds:.1f} s)",
            soft_wrap=True,
            markup=False,
        )

    def _best_text(self) -> str:
        if self.best is None:
            return "none finished yet"
        return f"best {self.best.value:.4f} (trial {self.best.number})"


def _told(values: dict[str, Any]) -> str:
    label = labels_of(values)
    return "  ".join(f"{label[key]}={text_of(value)}" for key, value in values.items())
