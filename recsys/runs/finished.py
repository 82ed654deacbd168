"""Run: a finished run's folder, opened for looking and asking."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from feature_store.durable import read_json
from feature_store.errors import DataError, command
from recsys.config.load import read_toml
from recsys.figure import Figure, cut_offs, first_cut
from recsys.runs.folder import RunFolder
from recsys.runs.weights import of_other_weights
from recsys.serving.recommender import Recommender


def measured(results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What was measured: "retrievers" or "rankers", and the summary of each by name."""
    kind = "rankers" if "rankers" in results else "retrievers"
    return kind, results[kind]


class Run:
    """What a run left behind; `files` says where it lies."""

    def __init__(self, folder: Path | str) -> None:
        self.files = RunFolder(Path(folder))
        if not self.files.config.exists():
            raise DataError(f"{folder} is not a run: it has no config.toml")

    def __repr__(self) -> str:
        """Folder, protocol, and the figure of every model that people look at first."""
        whole = f"Run({str(self.folder)!r}"
        if not self.files.metrics.exists():
            return f"{whole}, not evaluated)"
        figures = self.metrics
        cuts = cut_offs(map(Figure.parse, figures.columns))
        of_rows = "MRR" if "MRR" in figures else "AUC"
        name = str(Figure("NDCG", first_cut(cuts))) if cuts else of_rows
        told = ", ".join(f"{model} {value:.4f}" for model, value in figures[name].items())
        return f"{whole}, {self.results['protocol']}, {name}: {told})"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.files.path

    @property
    def bundle(self) -> Path:
        """The exported bundle's folder."""
        return self.files.bundle

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config. Raises ConfigError where it cannot be read."""
        return read_toml(self.files.config)

    @cached_property
    def results(self) -> dict[str, Any]:
        """Protocol, users and figures of every model measured, as in `metrics.json`, with the
        seconds that it took."""
        results = read_json(self.files.metrics)
        if not results:
            what = f"{self.folder} was not evaluated"
            if self.files.metrics.exists():
                what = f"{self.files.metrics} cannot be read"
            again = command("recsys", "evaluate", self.folder)
            raise DataError(f"{what}: run `{again}`")
        seconds = read_json(self.files.seconds)
        for name, summary in measured(results)[1].items():
            summary["seconds"] = seconds.get(name, {})
        return results

    @property
    def metrics(self) -> pd.DataFrame:
        """Test figures: one row a retriever (the model first), one column a metric."""
        models = measured(self.results)[1]
        rows = {name: summary["metrics"] for name, summary in models.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    @cached_property
    def recommender(self) -> Recommender:
        """The bundle, verified and ready to answer."""
        if not self.bundle.exists():
            raise DataError(
                f"{self.folder} has no bundle: run `{command('recsys', 'export', self.folder)}`"
            )
        return Recommender.open(self.bundle)

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        strict: bool = False,
    ) -> pd.DataFrame:
        """The k best items: for ids of known users, one or many, or for a frame of requests.

        Returns a frame with the columns user, rank, item, score, title, origin, fallback, as
        `Recommender.recommend`. Warns where the run was trained again since its bundle was made.
        """
        if told := of_other_weights(self.folder, self.recommender.finder.record.about):
            warnings.warn(told, stacklevel=2)
        tables = isinstance(users, pd.DataFrame | pa.Table)
        ids, requests = (None, users) if tables else (users, None)
        return self.recommender.recommend(
            ids, requests=requests, k=k, exclude_seen=exclude_seen, strict=strict
        )
