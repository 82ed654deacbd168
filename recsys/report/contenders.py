"""Contenders: evaluated retrievers, opened by name, that may be held against each other."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from feature_store.errors import DataError, command
from recsys.runs.finished import Run, measured
from recsys.runs.weights import TRAINING, training_of


@dataclass(frozen=True)
class Contender:
    """One retriever of an evaluated run; `label` is what tables call it."""

    label: str
    run: Run
    retriever: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.folder

    @property
    def summary(self) -> dict[str, Any]:
        """What `metrics.json` holds of the retriever."""
        return self.run.results["retrievers"][self.retriever]

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns per user."""
        return pq.read_schema(self._path).names

    @cached_property
    def figures(self) -> list[str]:
        """Names of all figures: the run's, and those of slices of items."""
        measured = [name for name, value in self.summary["metrics"].items() if value is not None]
        return measured + [name for name in self.columns if "|" in name]

    def per_user(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some of the columns, by user id."""
        table = pq.read_table(self._path, columns=["user", *columns], partitioning=None)
        if table.num_rows != self.summary["users"]:
            raise DataError(
                f"{self._path} has {table.num_rows:,} users and metrics.json "
                f"{self.summary['users']:,}: run "
                f"`{command('recsys', 'evaluate', self.folder)}` again"
            )
        return table.to_pandas().set_index("user")

    @property
    def _path(self) -> Path:
        path = self.run.files.lists_of(self.retriever)
        if not path.exists():
            raise DataError(
                f"{path} is absent: run `{command('recsys', 'evaluate', self.folder)}` again"
            )
        return path


def open_contenders(runs: Sequence[str]) -> tuple[Contender, ...]:
    """What FOLDER (its model) or FOLDER:RETRIEVER name.

    Raises DataError for fewer than two, unknown or repeated ones, runs that were not evaluated,
    and figures that must not be compared because their protocols differ.
    """
    if len(runs) < 2:
        raise DataError("name two runs or more; RUN:RETRIEVER names another retriever of a run")
    short = [text.rstrip("/").rpartition("/")[2] for text in runs]
    labels = short if len(set(short)) == len(short) else runs
    contenders = tuple(_open(text, label) for text, label in zip(runs, labels, strict=True))
    opened: set[tuple[Path, str]] = set()
    for contender in contenders:
        identity = contender.folder.resolve(), contender.retriever
        if identity in opened:
            raise DataError(f"{contender.label} is named twice: name different retrievers")
        opened.add(identity)
        _check_same_protocol(contenders[0], contender)
    return contenders


def _open(text: str, label: str) -> Contender:
    folder, retriever = text, ""
    if ":" in text and not Path(text).exists():
        folder, _, retriever = text.rpartition(":")
    if not Path(folder).is_dir():
        raise DataError(f"{folder} is not a folder: name runs as FOLDER or FOLDER:RETRIEVER")
    run = Run(folder)
    kind, models = measured(run.results)
    if kind != "retrievers":
        raise DataError(f"{folder} is of a ranker: only lists of retrievers can be compared yet")
    names = list(models)
    if retriever and retriever not in names:
        raise DataError(f"{folder} has no retriever {retriever!r}: it has {', '.join(names)}")
    _check_same_training(run, retriever or names[0])
    return Contender(label, run, retriever or names[0])  # the model is the first


def _check_same_training(run: Run, retriever: str) -> None:
    """Raises DataError where a model's figures are those of weights that are no longer there."""
    written, figures = run.results.get(TRAINING), run.results["retrievers"]
    section = run.config.get("retriever") or run.config.get("cascade") or {}
    model = figures.get(section.get("name"), {}).get("config")
    of_model = bool(model) and figures[retriever].get("config") == model  # or a reduced form of it
    if written and of_model and written != training_of(run.files):
        raise DataError(
            f"{run.folder} was trained again since {retriever} was measured: run "
            f"`recsys evaluate {shlex.quote(str(run.folder))}` first"
        )


def _check_same_protocol(first: Contender, contender: Contender) -> None:
    """Raises DataError, saying what differs, where figures must not be compared."""
    a, b = first.run.results, contender.run.results
    prints = a["protocol_fingerprint"], b["protocol_fingerprint"]
    if prints[0] == prints[1] and a["candidates"] == b["candidates"]:
        return
    settings = [
        results.get("protocol_parts", {}) | {"candidates": results["candidates"]}
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
