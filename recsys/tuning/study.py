"""Tuning: a search space, and a study that looks for the values of the highest figure.

A study lies in an SQLite file, so that a search that was killed goes on where it stood. Every
trial draws from a random state of its own (seed and index of the trial), hence a search that was
interrupted tries what an uninterrupted one would have tried.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from feature_store.errors import ConfigError, DataError, RecsysError
from recsys.tuning.options import Domain, TuneConfig

if TYPE_CHECKING:  # optuna is imported where it is used: every program reads a TuneConfig
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_OUTCOME = "outcome"  # the attribute of a study's trial that holds figures, seconds and reason
_STARTUP = 5  # whole trials before the pruner compares with their median


@dataclass(frozen=True)
class Trial:
    """One combination of values and what became of it; `number` counts from 1.

    `value` is the figure that is searched for and `figures` all that was measured, of finished
    trials only; `reason` says why another failed or was given up. A trial with the values of
    an earlier one repeats its outcome and takes no time.
    """

    number: int
    state: Literal["finished", "pruned", "failed"]
    values: dict[str, Any]
    value: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str | None = None


class Pruned(Exception):
    """Raised by `Report` where a trial falls behind; the study catches it."""


Report = Callable[[int, float], None]
"""Called with an epoch and its figure, by objectives that know how they are doing."""

Objective = Callable[[int, dict[str, Any], Report], dict[str, float]]
"""From a trial's number and values to its figures. A RecsysError is the trial's failure."""


class Study:
    """A search and its memory, made by `Study.open`."""

    def __init__(
        self, study: Any, space: Mapping[str, Domain], tune: TuneConfig, metric: str, seed: int
    ) -> None:
        self._study = study
        self._space = space
        self._tune = tune
        self._metric = metric
        self._seed = seed

    @classmethod
    def open(
        cls,
        path: Path,
        space: Mapping[str, Domain],
        tune: TuneConfig,
        *,
        metric: str,
        seed: int,
        made_from: Mapping[str, Any],
        resume: bool = False,
        replace: bool = False,
        warmup: int = 0,
    ) -> Study:
        """Begin a study in an SQLite file, or go on with the one that is there.

        Args:
            path: The file.
            space: What is tried, by option.
            tune: Trials, sampler and timeout.
            metric: The figure whose highest value is looked for.
            seed: Of what is drawn.
            made_from: Everything else that decides the figures, in JSON types.
            resume: Go on; trials that were cut off are begun again.
            replace: Begin anew; what the file holds is lost.
            warmup: Epochs that no trial is given up before.

        Raises:
            ConfigError: the file holds a study, and neither resume nor replace is set, or the
                study is of another search.
            DataError: the file holds something else.
        """
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if replace:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            optuna_study = optuna.create_study(
                storage=optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}"),
                study_name="tune",
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(_STARTUP, warmup),
            )
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError):
            raise DataError(f"{path} holds no study that can be read: use --replace") from None
        study = cls(optuna_study, space, tune, metric, seed)
        settings = {
            **made_from,
            "tune.space": {name: d.model_dump(exclude_none=True) for name, d in space.items()},
            "tune.sampler": tune.sampler,
            "tune.metric": metric,
            "seed": seed,
        }
        study._claim(path, json.loads(json.dumps(settings)), resume)
        return study

    def _claim(self, path: Path, settings: dict[str, Any], resume: bool) -> None:
        """Refuse the study of another search; set aside what was cut off."""
        made_from = self._study.user_attrs.get("made_from")
        if made_from is None:
            self._study.set_user_attr("made_from", settings)
            return
        names = sorted({*settings, *made_from})
        differing = [name for name in names if settings.get(name) != made_from.get(name)]
        if not resume:
            # of whatever space: its trials need not have the options of this one
            held = f"{path} holds a search of {len(self._ended)} trials"
            other = f" with another {', '.join(differing)}" if differing else ""
            way = "use that config with" if differing else "go on with"
            raise ConfigError(f"{held}{other}: {way} --resume, or begin anew with --replace")
        if differing:
            raise ConfigError(
                f"{path} holds a search with another {', '.join(differing)}: use that config, "
                "or begin anew with --replace"
            )
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)  # without a reason: cut off

    @property
    def trials(self) -> list[Trial]:
        """All trials that came to an end, in order."""
        return [self._trial(number, trial) for number, trial in enumerate(self._ended, 1)]

    @property
    def _ended(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if _ended(trial)]

    @property
    def best(self) -> Trial | None:
        """The finished trial of the highest value, the first of equals."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        return max(finished, key=lambda trial: trial.value or 0.0, default=None)

    @property
    def note(self) -> str | None:
        """A text kept with the study, such as where it is tracked."""
        return self._study.user_attrs.get("note")

    @note.setter
    def note(self, text: str | None) -> None:
        self._study.set_user_attr("note", text)

    def search(self, objective: Objective, *, after: Callable[[Trial], None]) -> None:
        """Try combinations until there are enough of them, or the time is over.

        `after` is called with every trial that came to an end.
        """
        minutes = self._tune.timeout
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        while len(trials := self.trials) < self._tune.trials and time.monotonic() < deadline:
            self._study.sampler = _sampler(self._tune.sampler, self._seed, len(trials))
            asked = self._study.ask({name: d.distribution() for name, d in self._space.items()})
            values = self._values(asked)
            text = json.dumps(values)  # 1 and true are equal in Python
            same = next((t for t in trials if json.dumps(t.values) == text), None)
            self._try(objective, asked, len(trials) + 1, values, same)
            after(self.trials[-1])

    def _try(
        self,
        objective: Objective,
        asked: Any,
        number: int,
        values: dict[str, Any],
        same: Trial | None,
    ) -> None:
        from optuna.trial import TrialState

        start = time.perf_counter()
        state, value = TrialState.COMPLETE, None
        outcome: dict[str, Any] = {}

        def report(epoch: int, figure: float) -> None:
            asked.report(figure, epoch)
            if asked.should_prune():
                raise Pruned(f"{self._metric} {figure:.4f} after epoch {epoch}: below the median")

        try:
            if same is None:
                figures = objective(number, values, report)
            elif same.state == "finished":
                figures = same.figures
            else:
                raise RecsysError(f"as trial {same.number}: {same.reason}")
            value = figures.get(self._metric, math.nan)
            if not math.isfinite(value):
                raise DataError(f"no finite {self._metric} was measured")
            outcome["figures"] = {name: v for name, v in figures.items() if math.isfinite(v)}
        except (RecsysError, Pruned) as error:
            state = TrialState.PRUNED if isinstance(error, Pruned) else TrialState.FAIL
            value, outcome["reason"] = None, str(error)
        outcome["seconds"] = time.perf_counter() - start if same is None else 0.0
        asked.set_user_attr(_OUTCOME, outcome)
        self._study.tell(asked, value, state=state)

    def _values(self, trial: Any) -> dict[str, Any]:
        return {name: domain.value(trial.params[name]) for name, domain in self._space.items()}

    def _trial(self, number: int, trial: FrozenTrial) -> Trial:
        state: Any = {"COMPLETE": "finished", "PRUNED": "pruned"}.get(trial.state.name, "failed")
        value = trial.value if state == "finished" else None
        return Trial(number, state, self._values(trial), value, **trial.user_attrs[_OUTCOME])


def _ended(trial: FrozenTrial) -> bool:
    """Whether a trial came to an end by itself: a failure without a reason was cut off."""
    outcome = trial.user_attrs.get(_OUTCOME, {})
    return trial.state.name in ("COMPLETE", "PRUNED") or "reason" in outcome


def _sampler(name: str, seed: int, index: int) -> BaseSampler:
    """A sampler for one trial. Random states differ by index, or a resumed study, whose sampler
    starts anew, would draw once more what it drew first."""
    import optuna

    own = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(own)
    return optuna.samplers.TPESampler(seed=own)


def counts(trials: list[dict[str, Any]]) -> str:
    """How many trials there are, and how many of them came to nothing."""
    others = [
        f"{count} {state}"
        for state in ("failed", "pruned")
        if (count := sum(trial["state"] == state for trial in trials))
    ]
    return f"{len(trials)} trials" + (f" ({', '.join(others)})" if others else "")
