"""What people see of a tuning: progress, the best trials, a picture, a baseline to paste."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w
from matplotlib.figure import Figure
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from feature_store.errors import DataError
from pipelines.progress import console
from recsys.retrievers import retriever_class
from recsys.tuning.study import Report, Trial


class TuningProgress:
    """A bar over trials with the best figure so far, and a line a trial."""

    def __init__(self, trials: int, metric: str, done: int, best: Trial | None) -> None:
        self.metric, self.best = metric, best
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

    def ended(self, trial: Trial) -> None:
        """Move the bar and print the trial's line."""
        best = -math.inf if self.best is None or self.best.value is None else self.best.value
        if trial.value is not None and trial.value > best:
            self.best = trial
        self._bar.update(self._task, advance=1, best=self._best_text(), now="")
        found = trial.state if trial.value is None else f"{self.metric} {trial.value:.4f}"
        label = _labels(trial.values)
        values = "  ".join(f"{label[key]}={_text(value)}" for key, value in trial.values.items())
        reason = f"  ({trial.reason})" if trial.reason else ""
        console.print(
            f"trial {trial.number:>3}  {found}  {self._best_text()}  {values}{reason}  "
            f"({trial.seconds:.1f} s)",
            soft_wrap=True,
            markup=False,
        )

    def _best_text(self) -> str:
        if self.best is None:
            return "none finished yet"
        return f"best {self.best.value:.4f} (trial {self.best.number})"


def trials_table(found: dict[str, Any], rows: int = 10) -> Table:
    """The best trials, the best one on top."""
    table = Table(
        title=f"{found['name']}, validation, {found['protocol']} "
        f"({found['protocol_fingerprint']}), {_counts(found['trials'])}",
        box=box.SIMPLE,
    )
    table.add_column("trial", justify="right")
    table.add_column(found["metric"], justify="right", no_wrap=True)
    for label in _labels(found["space"]).values():
        table.add_column(label, justify="right")
    table.add_column("seconds", justify="right")
    finished = [trial for trial in found["trials"] if trial["state"] == "finished"]
    for trial in sorted(finished, key=lambda trial: -trial["value"])[:rows]:
        values = (_text(value) for value in trial["values"].values())
        table.add_row(
            str(trial["number"]), f"{trial['value']:.4f}", *values, f"{trial['seconds']:.1f}"
        )
    return table


def baseline_snippet(found: dict[str, Any]) -> str | None:
    """The tuned retriever as TOML, to be pasted into a config as one of its baselines.

    None where it learns by gradient: such a retriever is the model of a run of its own.
    """
    if retriever_class(found["retriever"]).learns_by_gradient:
        return None
    values = {key.split(".", 1)[1]: value for key, value in best_trial(found)["values"].items()}
    return "[[baselines]]\n" + tomli_w.dumps({"name": found["retriever"], **_nested(values)})


def draw(found: dict[str, Any], path: Path) -> Path:
    """Draw the best figure so far, and every option's values against the figure."""
    finished = [trial for trial in found["trials"] if trial["state"] == "finished"]
    columns = min(3, 1 + len(found["space"]))
    rows = -(-(1 + len(found["space"])) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    figure.suptitle(f"{found['name']}, validation, {found['protocol']}")
    numbers, values = [t["number"] for t in finished], [t["value"] for t in finished]
    so_far = [max(values[: place + 1]) for place in range(len(values))]
    axes[0].plot(numbers, values, "o", color="tab:gray", markersize=4, label="trial")
    axes[0].step(numbers, so_far, where="post", label="best so far")
    axes[0].set(xlabel="trial", ylabel=found["metric"])
    axes[0].legend()
    label = _labels(found["space"])
    for axis, (key, domain) in zip(axes[1:], found["space"].items(), strict=False):
        tried = [t["values"][key] for t in finished]
        if "choices" in domain:
            labels = [_text(choice) for choice in domain["choices"]]
            axis.plot([labels.index(_text(value)) for value in tried], values, "o", markersize=4)
            axis.set_xticks(range(len(labels)), labels)
        else:
            axis.plot(tried, values, "o", markersize=4)
            axis.set_xscale("log" if domain.get("log") else "linear")
        axis.set(xlabel=label[key], ylabel=found["metric"])
    for axis in axes[1 + len(found["space"]) :]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def best_trial(found: dict[str, Any]) -> dict[str, Any]:
    """The best trial of a record. Raises DataError where none was finished."""
    if found["best"] is None:
        reasons = list(dict.fromkeys(trial["reason"] for trial in found["trials"]))
        raise DataError(
            f"none of {_counts(found['trials'])} could be finished: {'; '.join(reasons[:3])}"
        )
    return found["trials"][found["best"] - 1]


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return tree


def _counts(trials: list[dict[str, Any]]) -> str:
    others = [
        f"{count} {state}"
        for state in ("failed", "pruned")
        if (count := sum(trial["state"] == state for trial in trials))
    ]
    return f"{len(trials)} trials" + (f" ({', '.join(others)})" if others else "")


def _labels(keys: Iterable[str]) -> dict[str, str]:
    """The last part of every option's name, or all of it where two would be alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    count = Counter(last.values())
    return {key: short if count[short] == 1 else key for key, short in last.items()}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')
