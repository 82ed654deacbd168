"""Bundles of retrievers that learned next to nothing: what other formats are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conformance import TRAINED, bundle_of, fresh, learn, shape_of, small
from feature_store.catalogue import Catalogue
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.export.bundle import write_bundle
from recsys.export.ranker import RankerExport
from recsys.rankers import RANKERS
from recsys.serving.bundle import Bundle
from recsys.serving.manifest import About

Bundled = Callable[..., Bundle]


@pytest.fixture(scope="session")
def bundled(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundled:
    """The bundle of a retriever or ranker by name, with options of its own and of the export; each
    is made once."""
    made: dict[str, Bundle] = {}

    def bundled(name: str, options: dict[str, Any] | None = None, **export: Any) -> Bundle:
        key = f"{name} {options} {export}"
        if key not in made:
            examples, folder = planted[shape_of(name)], tmp_path_factory.mktemp(name)
            config = small(name, **(options or {}))
            torch.manual_seed(0)
            if name in RANKERS:
                about = About(run="conformance", model="planted")
                part = RankerExport(fresh(config, examples), examples, 8, about, **export)
                catalogue = Catalogue(planted_log.folder, planted_log.schema)
                made[key] = write_bundle(folder / "bundle", {"ranker": part}, catalogue)
                return made[key]
            if name in TRAINED:
                retriever = fresh(config, examples)
                retriever.prepare(examples.candidates())
            else:
                with join("cpu") as group:
                    retriever = learn(config, examples, folder / "checkpoints", group)
            written = bundle_of(retriever, examples, planted_log, folder / "bundle", **export)
            made[key] = written.bundle
        return made[key]

    return bundled


@pytest.fixture(scope="session")
def sasrec(bundled: Bundled) -> Bundle:
    return bundled("sasrec")
