"""Answers to requests that are rows of any values: a bad one is told why, and spoils no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from feature_store.errors import DataError
from recsys.serving.listed import Listed, stacked
from recsys.serving.recommender import REQUEST, Answers, Recommender, Wanted
from recsys.serving.requests import USER
from recsys.serving.rows import each_alone

PROBLEM = "problem"
_NOT_KNOWN = "nothing is known of its history"


class RowAnswers(NamedTuple):
    """The answers to B requests as a table, and why each of them [B] could not be answered as it
    was asked, None where it could."""

    table: pa.Table
    problems: list[str | None]


def answer_rows(recommender: Recommender, rows: Sequence[Any], **options: Any) -> RowAnswers:
    """The k best items of each of B rows, such as `{"user": 7}` or `{"history": [3, 17]}`, with the
    options of `Recommender.recommend`.

    Returns what `recommend_table` does, with the columns `request`, from 0, and `problem`. A row
    with a value of the wrong type, a moment that is none, too long a list, or numbers that the
    model fails of is answered as if nothing but its user were known, and says why; with `strict`
    it gets nothing. The others get the answers that they would get without it.

    Raises DataError for options that cannot be meant, and where there are no rows.
    """
    if not len(rows):
        raise DataError("no requests")
    wanted = recommender.wanted(**options)
    lenient = wanted._replace(strict=False)
    asked, problems = recommender.read_rows(rows)
    parts = []
    for places, said in each_alone(
        lambda places: recommender.answer_wanted(asked.take(list(places)), lenient),
        range(len(rows)),
    ):
        if isinstance(said, str):
            problems[places[0]] = problems[places[0]] or said
            said = _of_nothing_known(recommender, asked.slice(places[0], 1), lenient)
        parts.append(said)
    answers = _below_each_other(parts)
    if wanted.strict:
        unknown = answers.fallback.tolist()
        problems = [
            _NOT_KNOWN if problem is None and nothing else problem
            for problem, nothing in zip(problems, unknown, strict=True)
        ]
        refused = torch.tensor([problem is not None for problem in problems])
        answers = answers._replace(places=answers.places.masked_fill(refused.unsqueeze(1), -1))
    about = {REQUEST: pa.array(np.arange(len(rows)))}
    user = recommender.bundle.schema.user
    if user in asked.column_names:
        about[USER] = asked.column(user).combine_chunks()
    table = recommender.table_of(answers, about | {PROBLEM: pa.array(problems, pa.string())})
    last = [name for name in table.column_names if name != PROBLEM]
    return RowAnswers(table.select([*last, PROBLEM]), problems)


def _of_nothing_known(recommender: Recommender, row: pa.Table, wanted: Wanted) -> Answers:
    """The answer to a request of which no more than the user is known."""
    finder, user = recommender.finder, recommender.bundle.schema.user
    if finder.record.needs_history and finder.fallback is None:  # of a bundle before there was one
        nothing = torch.zeros(1, 0, dtype=torch.int64)
        return Answers(nothing, nothing.float(), torch.tensor([True]), nothing)
    blank = {
        name: values if name == user else pa.nulls(1, values.type)
        for name, values in zip(row.column_names, row.columns, strict=True)
    }
    return recommender.answer_wanted(pa.table(blank), wanted)


def _below_each_other(parts: Sequence[Answers]) -> Answers:
    whole = stacked([Listed(part.scores, part.places, part.origins) for part in parts])
    fallback = torch.cat([part.fallback for part in parts])
    return Answers(whole.places, whole.scores, fallback, whole.origins)
