"""Who judges the models of a run: requests, evaluators and validators of its protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from feature_store.columns import HISTORY, LABEL, TARGET, TARGET_PROFIT, TARGET_VALUE
from feature_store.progress import stage
from feature_store.protocols import TEST, VALIDATION
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.distributed import Group
from recsys.evaluation.evaluator import Evaluator, Result
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.predictions import OF_LISTS, Predictions
from recsys.rankers.base import Ranker
from recsys.retrievers.base import Retriever
from recsys.training.trainer import Validate

_SCORED = 8192  # rows that a ranker scores at a time


def validator(config: RunConfig, examples: Examples, group: Group) -> Validate:
    """Full ranking of the validation events by whatever retriever is passed; of a ranker, the
    figures of its predictions."""
    if config.ranker is not None:
        # people chose from what was shown where it was: what explains that best is the best
        return lambda model: (
            predictions(config, examples, cast(Ranker, model), VALIDATION, group, as_shown=True)[
                LABEL
            ].metrics
        )
    judged = judge(config, examples, VALIDATION, group)
    return lambda model: judged(cast(Retriever, model)).metrics


def judge(
    config: RunConfig, examples: Examples, role: str, group: Group
) -> Callable[[Retriever], Result]:
    """Full ranking of the events of a role by whatever retriever is passed."""
    evaluator = make_evaluator(config, examples, role)

    def judged(retriever: Retriever) -> Result:
        reader = request_reader(config, examples, retriever, role, group)
        with stage("validate"):
            return evaluator.evaluate(retriever, reader, group)

    return judged


def predictions(
    config: RunConfig,
    examples: Examples,
    ranker: Ranker,
    role: str,
    group: Group,
    *,
    as_shown: bool = False,
) -> dict[str, Predictions]:
    """What a ranker predicts of all rows of a role, by task: that an event's label is 1; with the
    lists that they were shown in where those are the candidates, and `as_shown` there."""
    user, lists = examples.schema.user, config.split.candidates == "shown"
    reader = examples.reader(
        role,
        ranker.inputs,
        ReaderConfig(batch_size=_SCORED, lanes=group.world),
        extra=(user, *ranker.judged_by, *(OF_LISTS if lists else ())),
        rank=group.rank,
        world=group.world,
    )
    return Predictions.by_task(ranker, reader, user, group, lists=lists, as_shown=as_shown)


def make_evaluator(
    config: RunConfig, examples: Examples, role: str, facts: ItemFacts | None = None
) -> Evaluator:
    """The evaluator of the run's protocol for the events of a role."""
    return Evaluator.under(
        config.split,
        config.evaluation,
        examples.candidates(config.split.candidates, role),
        user=examples.schema.user,
        facts=facts,
    )


def request_reader(
    config: RunConfig,
    examples: Examples,
    retriever: Retriever,
    role: str,
    group: Group,
    most: int | None = None,
) -> Reader:
    """Batches of requests of a role, by default of as many as the evaluation's options say."""
    roles = {TARGET_VALUE: examples.schema.price, TARGET_PROFIT: examples.schema.cost}
    worth = [name for name, column in roles.items() if role == TEST and column is not None]
    rows = examples.summary.rows[role]
    size = max(group.world, min(most or config.evaluation.batch_size, rows))
    return examples.reader(
        role,
        retriever.inputs,
        ReaderConfig(batch_size=size, lanes=group.world),
        extra=(examples.schema.user, HISTORY, TARGET, *worth),
        rank=group.rank,
        world=group.world,
    )
