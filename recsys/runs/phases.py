"""The phases of a run's training, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_store.errors import DataError, command
from feature_store.protocols import LEARNT, TRAIN, VALIDATION
from recsys.config import RunConfig
from recsys.runs.finished import Run
from recsys.runs.folder import MAIN_PHASE, PhaseFolder, RunFolder
from recsys.training.options import TrainerConfig


@dataclass(frozen=True)
class Phase:
    """A training from its first step to its last, on examples of its own.

    Attributes:
        name: Names the phase's folders, and what is logged of it.
        examples: Roles of the events that are trained on.
        trainer: How long and how fast; its epochs are also the horizon of the schedule.
        start_from: The weights that it starts from: an earlier phase's best, or those of another
            run, given by its folder. None starts with a model that has learned nothing.
        as_long_as: An earlier phase: as many epochs as that one needed for its best are trained.
    """

    name: str
    examples: tuple[str, ...]
    trainer: TrainerConfig
    start_from: Phase | Path | None = None
    as_long_as: Phase | None = None

    @property
    def validated(self) -> bool:
        """Whether there are events left to choose the best epoch by; else it is the last."""
        return VALIDATION not in self.examples


def phases_of(trainer: TrainerConfig) -> tuple[Phase, ...]:
    """The phases of a training, in their order; the weights of the last are those that count."""
    train = Phase(MAIN_PHASE, (TRAIN,), trainer, trainer.start_from)
    if not trainer.refit:
        return (train,)
    return (train, Phase("refit", LEARNT, trainer, trainer.start_from, as_long_as=train))


def phases_of_run(run: Run) -> tuple[Phase, ...]:
    """The phases of a run that is there already, perhaps of another version: of its options only
    those are read that make the list."""
    return phases_of(TrainerConfig(refit=run.config.get("trainer", {}).get("refit", False)))


def start_of(config: RunConfig, phase: Phase) -> PhaseFolder | None:
    """The phase, of this run or another, whose weights and ids a phase starts from.

    Of another run with the same data and split it is the last that has seen no more than this
    phase may see; of another, which has other events to hold out, it is the last.

    Raises DataError where it has no checkpoints.
    """
    if phase.start_from is None:
        return None
    if isinstance(phase.start_from, Phase):
        return RunFolder(config.folder).phase(phase.start_from.name)
    run, now = Run(phase.start_from), config.to_dict()
    alike = all(run.config.get(section) == now[section] for section in ("data", "split"))
    *_, last = (
        theirs
        for theirs in phases_of_run(run)
        if not alike or set(theirs.examples) <= set(phase.examples)
    )
    start = run.files.phase(last.name)
    if not start.checkpoints.exists():
        raise DataError(
            f"trainer.start_from = {phase.start_from}: that run has no checkpoints; "
            f"run `{command('recsys', 'train', run.folder)}` first"
        )
    return start
