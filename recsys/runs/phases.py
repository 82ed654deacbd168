"""The phases of a run's training, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_store.errors import DataError, command
from feature_store.protocols import LEARNT, TRAIN, VALIDATION
from recsys.config import RunConfig
from recsys.runs.finished import Run
from recsys.runs.folder import MAIN_PHASE, PhaseFolder, RunFolder
from recsys.training.options import PhaseConfig, TrainerConfig


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
        learns: Which of its phases the model is told of.
    """

    name: str
    examples: tuple[str, ...]
    trainer: TrainerConfig
    start_from: Phase | Path | None = None
    as_long_as: Phase | None = None
    learns: str = MAIN_PHASE

    @property
    def validated(self) -> bool:
        """Whether there are events left to choose the best epoch by; else it is the last."""
        return VALIDATION not in self.examples


def phases_of(trainer: TrainerConfig) -> tuple[Phase, ...]:
    """The phases of a training, in their order; the weights of the last are those that count.

    A refit goes through all of them again.
    """
    phases: list[Phase] = []
    for own in trainer.phases or (PhaseConfig(name=MAIN_PHASE),):
        start = phases[-1] if phases else trainer.start_from
        phases.append(Phase(own.name, (TRAIN,), trainer.of_phase(own), start, learns=own.name))
    if not trainer.refit:
        return tuple(phases)
    again: list[Phase] = []
    for first in phases:
        name = "refit" if first.name == MAIN_PHASE else f"refit_{first.name}"
        start = again[-1] if again else trainer.start_from
        again.append(Phase(name, LEARNT, first.trainer, start, first, first.learns))
    return (*phases, *again)


def phases_of_run(run: Run) -> tuple[Phase, ...]:
    """The phases of a run that is there already, perhaps of another version: of its options only
    those are read that make the list."""
    options = run.config.get("trainer", {})
    names = tuple(PhaseConfig(name=phase["name"]) for phase in options.get("phases", ()))
    return phases_of(TrainerConfig(refit=options.get("refit", False), phases=names))


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
