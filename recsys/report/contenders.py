"""Contenders: evaluated models, opened by name, that may be held against each other."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import DataError, command
from feature_store.parquet import read_parquet
from recsys.runs.finished import Run, measured
from recsys.runs.weights import TRAINING, training_of


@dataclass(frozen=True)
class Contender:
    """One retriever or ranker of an evaluated run; `label` is what tables call it."""

    label: str
    run: Run
    model: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.folder

    @property
    def kind(self) -> str:
        """What it is: "retriever" or "ranker"."""
        return measured(self.run.results)[0].removesuffix("s")

    @property
    def ranks_rows(self) -> bool:
        """Whether it is a ranker, which is measured row by row, and makes no lists."""
        return self.kind == "ranker"

    @property
    def is_run_s_own(self) -> bool:
        """Whether it is what the run has trained, and no baseline of it."""
        return self.model == next(iter(measured(self.run.results)[1]))

    @property
    def summary(self) -> dict[str, Any]:
        """What `metrics.json` holds of it."""
        summary: dict[str, Any] = measured(self.run.results)[1][self.model]
        return summary

    @cached_property
    def columns(self) -> list[str]:
        """Names of a retriever's columns per user."""
        return pq.read_schema(self._there(self.run.files.lists_of(self.model))).names

    @cached_property
    def figures(self) -> list[str]:
        """Names of all figures: the run's, and those of slices of items."""
        known = [name for name, value in self.summary["metrics"].items() if value is not None]
        if self.ranks_rows:
            return known
        return known + [name for name in self.columns if "|" in name]

    def per_user(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some of a retriever's columns, by user id."""
        table = self._read(self.run.files.lists_of(self.model), ["user", *columns], "users")
        return table.to_pandas().set_index("user")

    def per_row(self) -> pa.Table:
        """A ranker's predictions, as `Predictions.table` has them, by user, item and label."""
        columns = ["user", "item", "label", "probability"]
        table = self._read(self.run.files.predictions_of(self.model), columns, "rows")
        return table.sort_by([(name, "ascending") for name in columns])

    def per_list(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some of the figures of the lists that a ranker has ordered, by list id."""
        table = self._read(self.run.files.list_figures_of(self.model), ["list", *columns])
        return table.to_pandas().set_index("list")

    def _read(self, path: Path, columns: list[str], what: str | None = None) -> pa.Table:
        table = read_parquet(self._there(path), columns)
        if what is not None and table.num_rows != self.summary[what]:
            raise DataError(
                f"{path} has {table.num_rows:,} {what} and metrics.json "
                f"{self.summary[what]:,}: run "
                f"`{command('recsys', 'evaluate', self.folder)}` again"
            )
        return table

    def _there(self, path: Path) -> Path:
        if not path.exists():
            raise DataError(
                f"{path} is absent: run `{command('recsys', 'evaluate', self.folder)}` again"
            )
        return path


def open_contenders(runs: Sequence[str]) -> tuple[Contender, ...]:
    """What FOLDER (its model) or FOLDER:MODEL name: retrievers, or rankers.

    Raises DataError for fewer than two, unknown or repeated ones, runs that were not evaluated,
    some of either kind, and figures that must not be compared because their protocols differ.
    """
    if len(runs) < 2:
        raise DataError("name two runs or more; RUN:RETRIEVER names another retriever of a run")
    short = [text.rstrip("/").rpartition("/")[2] for text in runs]
    labels = short if len(set(short)) == len(short) else runs
    contenders = tuple(_open(text, label) for text, label in zip(runs, labels, strict=True))
    opened: set[tuple[Path, str]] = set()
    for contender in contenders:
        identity = contender.folder.resolve(), contender.model
        if identity in opened:
            raise DataError(f"{contender.label} is named twice: name different {contender.kind}s")
        opened.add(identity)
        if contender.kind != contenders[0].kind:
            raise DataError(
                f"{contenders[0].label} is a {contenders[0].kind} and {contender.label} a "
                f"{contender.kind}: lists and predictions have no figure in common"
            )
        _check_same_protocol(contenders[0], contender)
    return contenders


def _open(text: str, label: str) -> Contender:
    folder, model = text, ""
    if ":" in text and not Path(text).exists():
        folder, _, model = text.rpartition(":")
    if not Path(folder).is_dir():
        raise DataError(f"{folder} is not a folder: name runs as FOLDER or FOLDER:RETRIEVER")
    run = Run(folder)
    kind, models = measured(run.results)
    names = list(models)
    if model and model not in names:
        what = kind.removesuffix("s")
        raise DataError(f"{folder} has no {what} {model!r}: it has {', '.join(names)}")
    _check_same_training(run, model or names[0])
    return Contender(label, run, model or names[0])  # the run's own is the first


def _check_same_training(run: Run, measured_one: str) -> None:
    """Raises DataError where a model's figures are those of weights that are no longer there."""
    written, figures = run.results.get(TRAINING), measured(run.results)[1]
    sections = (run.config.get(kind) for kind in ("retriever", "ranker", "cascade"))
    name = next((section["name"] for section in sections if section), "")
    model = figures.get(name, {}).get("config")
    own = figures[measured_one].get("config")
    of_model = bool(model) and own == model  # or a reduced form, or another task of it
    if written and of_model and written != training_of(run.files):
        raise DataError(
            f"{run.folder} was trained again since {measured_one} was measured: run "
            f"`recsys evaluate {shlex.quote(str(run.folder))}` first"
        )


def _check_same_protocol(first: Contender, contender: Contender) -> None:
    """Raises DataError, saying what differs, where figures must not be compared."""
    a, b = first.run.results, contender.run.results
    prints = a["protocol_fingerprint"], b["protocol_fingerprint"]
    if prints[0] == prints[1] and a.get("candidates") == b.get("candidates"):
        return
    settings = [
        results.get("protocol_parts", {}) | {"candidates": results.get("candidates")}
        for results in (a, b)
    ]
    names = list(settings[0] | settings[1])
    if settings[0].get("split.protocol") != settings[1].get("split.protocol"):
        # what only one of two kinds of protocol knows says no more than that the kinds differ
        names = [name for name in names if name in settings[0] and name in settings[1]]
    values = [(name, *(json.dumps(protocol.get(name)) for protocol in settings)) for name in names]
    differing = [
        f"{name} is {x} in {first.label} but {y} in {contender.label}"
        for name, x, y in values
        if x != y
    ]
    raise DataError(
        f"{first.label} was measured by {a['protocol']} ({prints[0]}), {contender.label} by "
        f"{b['protocol']} ({prints[1]}), and figures of different protocols are not comparable: "
        f"{'; '.join(differing) or 'neither says what differs, evaluate both again'}"
    )
