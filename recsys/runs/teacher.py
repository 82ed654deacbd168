"""The finished ranker that a run's ranker learns from."""

from __future__ import annotations

from typing import cast

from feature_store.errors import ConfigError
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.inputs import History
from recsys.rankers.base import Ranker
from recsys.runs.build import build_model
from recsys.runs.folder import RunFolder
from recsys.runs.leaks import check_not_learnt
from recsys.runs.log import open_log
from recsys.runs.parts import check_lists, part_config
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare_together
from recsys.runs.standing import check_finished
from recsys.training import checkpoint

_OPTION = "ranker.teacher"


def teacher_of(config: RunConfig, examples: Examples, group: Group) -> Ranking | None:
    """The teacher that the config names, asked in the rows of its own `examples`; None without one.

    Raises DataError where it is no finished run or has learned what is the test here, and
    ConfigError where it is no ranker, is of another log, or reads lists that are not there.
    """
    run = getattr(config.ranker, "teacher", None)
    if run is None:
        return None
    part = part_config(_OPTION, run)
    if part.ranker is None:
        raise ConfigError(f"{_OPTION}: {run} is no run of a ranker")
    check_finished(_OPTION, part)
    if open_log(part)[0].fingerprint != open_log(config)[0].fingerprint:
        raise ConfigError(f"{_OPTION}: {run} is of another event log than {config.store_folder}")
    phase = phases_of(part.trainer)[-1]
    known = prepare_together(part, phase, group)
    teacher = cast(Ranker, build_model(part, known))
    checkpoints = RunFolder(part.folder).phase(phase.name).checkpoints
    checkpoint.load_unsharded(checkpoint.best(checkpoints), teacher)
    check_not_learnt(config, examples, _OPTION, part, known)
    lists = [asked.name for asked in teacher.inputs if isinstance(asked, History)]
    own, read = config.rows_of.requested, part.rows_of.requested
    for name in lists:
        if own.get(name) != read[name]:
            raise ConfigError(
                f"{_OPTION}: {run} reads the history {name!r}, which is none of this run's, or "
                f"holds other events: name it in ranker.histories as there"
            )
    check_lists(config, _OPTION, part, lists)
    features = [asked.feature for asked in teacher.inputs if asked.feature is not None]
    translation = Translation.between(examples, known, features)
    ranking = Ranking(teacher.eval(), teacher.tasks[0], translation).to(group.device)
    ranking.requires_grad_(False)
    return ranking
