"""Bundles of retrievers that learned next to nothing: what other formats are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance import TRAINED, bundle_of, fresh, learn, shape_of, small
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.serving.bundle import Bundle

Bundled = Callable[..., Bundle]


@pytest.fixture(scope="session")
def bundled(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundled:
    """The bundle of a retriever by name, with its options and those of the export; each is made
    once."""
    made: dict[str, Bundle] = {}

    def bundled(name: str, options: dict[str, Any] | None = None, **export: Any) -> Bundle:
        key = f"{name} {options} {export}"
        if key not in made:
            examples, folder = planted[shape_of(name)], tmp_path_factory.mktemp(name)
            config = small(name, **(options or {}))
            if name in TRAINED:
                torch.manual_seed(0)
                retriever = fresh(config, examples)
                retriever.prepare(examples.candidates())
            else:
                with join("cpu") as group:
                    retriever = learn(config, examples, folder / "checkpoints", group)
            made[key] = bundle_of(
                retriever, examples, planted_log, folder / "bundle", **export
            ).bundle
        return made[key]

    return bundled


@pytest.fixture(scope="session")
def sasrec(bundled: Bundled) -> Bundle:
    return bundled("sasrec")


def files_in(folder: Path) -> set[str]:
    """Names of all files in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
