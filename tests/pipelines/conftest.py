"""A small config of the whole job, as the tree that a TOML file holds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from recsys.report.charts import Chart

Tree = dict[str, Any]
Ask = Callable[..., tuple[Any, str, str]]


@pytest.fixture(autouse=True, scope="module")
def drawing() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Charts are made and not drawn, which takes half of a small run: tests of reports draw them,
    and here one run of each kind, within this."""
    save, svg = Chart.save, Chart.svg

    def not_saved(chart: Chart, folder: Path) -> Path:
        path = folder / f"{chart.name}.png"
        path.write_bytes(b"")
        return path

    @contextmanager
    def drawn() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Chart, "save", save)
            patch.setattr(Chart, "svg", svg)
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chart, "save", not_saved)
        patch.setattr(Chart, "svg", "<svg></svg>")
        yield drawn


@pytest.fixture(scope="session")
def recsys() -> Ask:
    """Runs the program in this process: (exit status or message, stdout, stderr)."""

    def recsys(*words: object) -> tuple[Any, str, str]:
        status: Any = 0
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(StringIO()) as out,
            redirect_stderr(StringIO()) as errors,
        ):
            patch.setattr(sys, "argv", ["recsys", *map(str, words)])
            try:
                cli.main()
            except SystemExit as leave:
                status = leave.code
        *_, last = ["", *errors.getvalue().splitlines()]
        if status == 1 and last.startswith("recsys: "):  # what went wrong, told last
            status = last
        return status, out.getvalue(), errors.getvalue()

    return recsys


@pytest.fixture(scope="session")
def tree_of() -> Callable[..., Tree]:
    """A config over a synthetic log, small enough to train in a second or two."""

    def tree_of(output: Path, **sections: Any) -> Tree:
        return {
            "name": "small",
            "seed": 3,
            "output": str(output),
            "data": {"source": "synthetic", "users": 150, "items": 60, "clusters": 4, "events": 12},
            "split": {"protocol": "leave_one_out", "event_types": ["click", "purchase"]},
            "retriever": {"name": "sasrec", "width": 16, "blocks": 1, "max_length": 20},
            "reader": {"batch_size": 16},
            "trainer": {"epochs": 4, "device": "cpu"},
            "baselines": ["popularity", "recent_popularity"],
            "evaluation": {"ks": [1, 10, 20], "replicates": 100},
            "tracking": {"enabled": False},
            **sections,
        }

    return tree_of
