"""Where people can look at a run that was tracked."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.installed import program
from pipelines.progress import console
from recsys.runs.work import Work
from recsys.tracking import Tracker

_LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` listens


@contextmanager
def tracked(work: Work, *, new: bool = False) -> Iterator[Tracker]:
    """`work.tracked`, which ends with the address of the run's page."""
    with work.tracked(new=new) as tracker:
        yield tracker
        tell_page(tracker)


def tell_page(tracker: Tracker) -> None:
    """Say where the run's own page is; nothing where it was not tracked, or not whole."""
    if tracker.page is None:
        return
    served = tracker.uri.startswith(("http://", "https://"))
    server = tracker.uri.rstrip("/") if served else _LOCAL
    start = f"{program('mlflow')} ui --backend-store-uri {shlex.quote(tracker.uri)}"
    how = "" if served else f"`{start}`, then "
    console.print(f"MLflow: {how}{server}{tracker.page}", soft_wrap=True)
