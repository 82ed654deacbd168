"""A small config of the whole job, as the tree that a TOML file holds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli

Tree = dict[str, Any]
Ask = Callable[..., tuple[Any, str, str]]


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
            "evaluation": {"ks": [1, 10, 20]},
            "tracking": {"enabled": False},
            **sections,
        }

    return tree_of
