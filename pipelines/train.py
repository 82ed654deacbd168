"""Event log -> checkpoints."""

from __future__ import annotations

from pipelines.progress import console, listening
from pipelines.tracked_page import tracked
from recsys.config import RunConfig
from recsys.runs.fit import fit
from recsys.runs.standing import check_start, left_to_train
from recsys.runs.steps import FIGURES
from recsys.runs.work import Work, working_on
from recsys.tracking import Tracker


def train(config: RunConfig, *, resume: bool = False, fresh: bool = False) -> None:
    """Train on an ingested log; a finished training is left as it is.

    Raises ConfigError when the folder holds another training, or one that was stopped, and
    neither `resume` nor `fresh` says what to do; or when another program holds the folder.
    """
    check_start(config, resume=resume, fresh=fresh)
    with working_on(config) as work:
        begins = left_to_train(config, resume=resume, fresh=fresh)
        anew = begins and not resume and (fresh or not FIGURES.is_done(config))
        with tracked(work, new=anew) as tracker:
            train_in(work, tracker, resume=resume, fresh=fresh)


def train_in(work: Work, tracker: Tracker, *, resume: bool, fresh: bool) -> None:
    """`train` in a run that is held already."""
    listen = listening(work.config, tracker)
    trained = fit(work, tracker, resume=resume, fresh=fresh, listen=listen)
    if work.group.leads and not trained:
        console.print(
            f"{work.files.path} holds a finished training, of which `recsys run` makes what is "
            "missing of figures and bundle: train longer with --resume, or anew with --fresh",
            soft_wrap=True,
        )
