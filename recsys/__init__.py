"""Train, evaluate and serve recommender models.

import recsys
run = recsys.run("pipelines/configs/synthetic_quickstart.toml")
print(run.metrics)
print(run.recommend([1, 2, 3], k=5))
run = recsys.open_run("runs/synthetic_quickstart")
run = recsys.evaluate("config.toml", frame_of_user_item_rank)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.errors import RecsysError

# Tensors of many megabytes come and go with every step, and on CPUs it takes longer to get their
# memory page by page than to fill it: torch asks for huge pages where this is set in time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from recsys.runs.finished import Run

__version__ = "0.1.0"
__all__ = ["RecsysError", "Run", "__version__", "evaluate", "open_run", "run"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """`Run`, which is loaded where it is asked for: it opens bundles, and they need torch."""
    if name != "Run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recsys.runs.finished import Run

    return Run


def run(
    config: Any,
    *overrides: str,
    resume: bool = False,
    fresh: bool = False,
    force: bool = False,
) -> Run:
    """Ingest, train, evaluate, export and verify.

    `config` is a TOML file, a dict of the same tree, or a RunConfig; `overrides` are texts such
    as "trainer.epochs=3". What is done already is not done again; a training that was stopped goes
    on with `resume`, and `fresh` trains anew over one that is there. With `force` the bundle gets
    the tracker's alias even where the model does not beat its baselines.
    """
    # the one place where the library calls a program: notebooks get what the command line does
    from pipelines.run import run as run_pipeline

    return run_pipeline(config, list(overrides), resume=resume, fresh=fresh, force=force)


def evaluate(config: Any, recommendations: Any, *overrides: str, name: str | None = None) -> Run:
    """Measure lists made elsewhere, under the data and protocol of a config; nothing is trained.

    `recommendations` is a Parquet file or a frame with the columns user, item, and rank or score.
    The run's metrics then hold them as retriever `name`, beside what it has measured before.
    """
    from pipelines.run import evaluate_lists

    lists = Path(recommendations) if isinstance(recommendations, str) else recommendations
    return evaluate_lists(config, lists, list(overrides), name=name)


def open_run(folder: Path | str) -> Run:
    """Open the folder of a finished run."""
    from recsys.runs.finished import Run

    return Run(folder)
