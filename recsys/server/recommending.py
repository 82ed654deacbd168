"""A batch of questions for items, answered by what is live."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from recsys.server.isolating import each_alone
from recsys.server.listing import items_of
from recsys.server.live import Live
from recsys.server.models import Answer, Question, Recommend
from recsys.server.rows import ids_as, requests_of


class Options(NamedTuple):
    """What questions must share to be answered by one search."""

    k: int
    include_seen: bool
    exclude: tuple[int | str, ...]
    allowed: tuple[int | str, ...] | None
    where: str | None

    @classmethod
    def of(cls, asked: Recommend) -> Options:
        """Those of a body."""
        allowed = None if asked.allowed is None else tuple(asked.allowed)
        return cls(asked.k, asked.include_seen, tuple(asked.exclude), allowed, asked.where)


class Wanted(NamedTuple):
    """A question, and how it is to be answered."""

    question: Question
    options: Options

    @property
    def group(self) -> tuple[Any, ...]:
        """Those of one group make one table, and one search."""
        question = self.question
        return (self.options, question.history is None, question.history_time is None)


def recommend(live: Live, wanted: Sequence[Wanted]) -> list[Answer | Exception]:
    """An answer for each question, or its own error."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, each in enumerate(wanted):
        groups.setdefault(each.group, []).append(place)
    answers: list[Answer | Exception] = [KeyError()] * len(wanted)
    for (options, *_), places in groups.items():
        asked = [wanted[place].question for place in places]
        for place, answer in zip(
            places, each_alone(partial(_answer, live, options), asked), strict=True
        ):
            answers[place] = answer
    return answers


def _answer(live: Live, options: Options, questions: Sequence[Question]) -> list[Answer]:
    """Answers to questions of one group."""
    recommender = live.recommends()
    requests = requests_of(live, questions)
    item = recommender.finder.item_ids.type
    answered = recommender.answer(
        requests,
        k=options.k,
        exclude_seen=not options.include_seen,
        allowed=None if options.allowed is None else ids_as(options.allowed, item, "allowed"),
        forbidden=ids_as(options.exclude, item, "exclude") if options.exclude else None,
        where=options.where,
    )
    lists = items_of(
        recommender.finder.item_ids,
        recommender.catalogue,
        answered.places,
        answered.scores,
        recommender.names_of(answered.origins[answered.places >= 0]),
    )
    answers: list[Answer] = []
    for question, items, fallback in zip(questions, lists, answered.fallback.tolist(), strict=True):
        answer: Answer = {"bundle": live.version, "fallback": fallback, "items": items}
        if question.user is not None:
            answer["user"] = question.user
        answers.append(answer)
    return answers
