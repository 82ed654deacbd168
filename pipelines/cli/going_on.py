"""What a verb says when a signal stops it: what is kept, and what to type."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pipelines.cli.arguments import load
from pipelines.cli.stopping import Stopped
from pipelines.installed import program

_HOW = ("--resume", "--fresh", "--replace")  # how what was stopped had begun

P = ParamSpec("P")
T = TypeVar("T")


def telling_how(verb: Callable[P, T]) -> Callable[P, T]:
    """The verb; where a signal stops it, the line about that says what is kept and what to type."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except Stopped as stopped:
            stopped.way = _way(verb.__name__, kwargs) or stopped.way
            raise

    return run


def _way(verb: str, arguments: dict[str, Any]) -> str | None:
    """How to go on with a training or a search; None of other verbs, which begin again."""
    if verb not in ("run", "train", "tune"):
        return None
    again = f"{program()} {shlex.join(word for word in sys.argv[1:] if word not in _HOW)}"
    try:
        kept = _kept(verb, arguments)
    except Exception:  # it was stopped before it had read its config, or half of a library
        kept = None
    if kept is None:
        return f"begin again with `{again}`"
    what, goes_on = kept
    return f"{what} kept: go on with `{again}{' --resume' if goes_on else ''}`"


def _kept(verb: str, arguments: dict[str, Any]) -> tuple[str, bool] | None:
    """What is left of the work, and whether it takes --resume to go on; None where nothing is."""
    from recsys.runs.folder import RunFolder
    from recsys.runs.standing import of_another_log

    config = load(arguments["config"], arguments["overrides"])
    files = RunFolder(config.folder)
    if verb == "tune":
        other = arguments["retriever"]
        files = files if other is None else files.search_of(other)
        return ("the trials so far are", True) if files.study.exists() else None
    if files.training_record.exists() and not of_another_log(config, files):
        return "the training is finished and", False
    steps = [step for phase in files.checkpoints for step in sorted(phase.glob("step-*"))]
    return (f"{_named(steps[-1])} is", True) if steps else None


def _named(checkpoint: Path) -> str:
    return f"{checkpoint.parent.name}/{checkpoint.name}"
