"""A retriever that was trained, and its bundle: what tests of serving start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conformance import bundle_of
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from recsys.data.examples import Examples
from recsys.retrievers.base import VectorRetriever
from recsys.serving.files import digest
from recsys.serving.index.options import IndexConfig
from recsys.serving.recommender import Recommender

ITEMS, GOLDEN = "parts/generator/items.npy", "parts/generator/golden.parquet"
FALLBACK = "parts/generator/fallback.parquet"


@dataclass
class Served:
    """A trained retriever and its bundle."""

    retriever: VectorRetriever
    examples: Examples
    log: EventLog
    recommender: Recommender
    recommended: dict[int, list[str]]  # by user, the ten that the evaluator saw

    @property
    def bundle(self) -> Path:
        return self.recommender.bundle.folder

    def export(self, folder: Path, *index: IndexConfig, **options: Any) -> Recommender:
        return bundle_of(self.retriever, self.examples, self.log, folder, *index, **options)


def assert_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        Recommender.open(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def forge(bundle: Path, name: str) -> None:
    """Make the manifest agree with a changed file."""
    rewrite(bundle, lambda manifest: manifest["files"].update({name: digest(bundle / name)}))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a manifest says."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def ask(served: Served, **columns: list[Any]) -> pd.DataFrame:
    return served.recommender.recommend(requests=pd.DataFrame(columns), k=5)
