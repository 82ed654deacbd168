"""What became of an item on its way through a cascade: who found it, who thought what of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.inputs import Requests
from recsys.lists.funnel import Stage
from recsys.lists.stage_names import CANDIDATES, COARSE, FINE
from recsys.serving.cascade import Cascade, RankingPart
from recsys.serving.recommender import Recommender

_BEYOND = 1000  # places of a generator's list that are looked through, or ten times its budget


class Opinion(NamedTuple):
    """What a stage has made of an item: its rank, from 1, among `of` items, its score, and whether
    the item went on. The rank is None where it was not asked, or stands further behind."""

    stage: str
    rank: int | None
    of: int
    score: float | None
    kept: bool


def explain_item(recommender: Recommender, user: Any, item: Any, k: int = 10) -> pa.Table:
    """`explain_request` of the newest request of a known user. Raises DataError for another."""
    return explain_request(recommender, recommender.requests_of([user]), item, k)


def explain_request(
    recommender: Recommender, request: pa.Table, item: Any, k: int = 10
) -> pa.Table:
    """The opinions of all stages of an item for a request, one row a stage; what the last one
    has `kept` is shown among the first k.

    A ranker that the item has not reached says what it would have thought of it.

    Raises DataError for a bundle without a cascade, for unknown items, and for items that are left
    out because they are in the history.
    """
    cascade = recommender.finder
    if not isinstance(cascade, Cascade):
        raise DataError(
            f"{recommender.bundle.folder} answers by one generator, which has no stages to tell of"
        )
    asked, exclude = recommender.asked_of(request)
    place = cascade.place_of(item)
    if (exclude == place).any():
        key = recommender.bundle.schema.user
        known = request.column(key)[0].as_py() if key in request.column_names else None
        who = "the user" if known is None else f"user {known}"
        raise DataError(f"{who} has had item {item}, which is left out from the beginning")
    opinions = list(_opinions(cascade, asked, exclude, place, k))
    columns = zip(*opinions, strict=True)
    return pa.table(dict(zip(Opinion._fields, map(list, columns), strict=True)))


def _opinions(
    cascade: Cascade, asked: Requests, exclude: Tensor, place: int, k: int
) -> list[Opinion]:
    opinions, left = [], {stage.name: stage for stage in cascade.stages(asked, k, exclude)}
    for name, part in cascade.generators.items():
        longer = max(10 * part.budget, _BEYOND)
        items, scores = replace(part, budget=longer).finding(asked, exclude)()
        whole = _of(Stage(name, items, scores), place)
        in_budget = whole.rank is not None and whole.rank <= part.budget
        opinions.append(whole._replace(of=_count(left[name]), kept=in_budget))
    opinions.append(_of(left[CANDIDATES], place))
    before = left[CANDIDATES]
    for name, ranker in ((COARSE, cascade.coarse), (FINE, cascade.fine)):
        if ranker is not None:
            opinions.append(_of_ranker(name, ranker, asked, before, place))
            kept = _of(left[name], place)
            worth = None if name == COARSE else cascade.worth
            opinions[-1] = _judged(opinions[-1], kept, worth, place)
            before = left[name]
    *_, last = left.values()
    shown = _of(last._replace(items=last.items[:, :k], scores=last.scores[:, :k]), place)
    if last.name == FINE:  # which is the list
        opinions[-1] = opinions[-1]._replace(kept=shown.kept)
    else:
        opinions.append(shown)
    return opinions


def _of_ranker(
    name: str, ranker: RankingPart, asked: Requests, before: Stage, place: int
) -> Opinion:
    """What a ranker thinks of an item, beside those that it was asked for."""
    items = torch.cat([before.items, torch.tensor([[place]])], dim=1)
    scores = ranker.scoring(asked)(items)[0].double().sigmoid()
    others = scores[:-1][(before.items[0] >= 0) & (before.items[0] != place)]
    reached = bool((before.items == place).any())
    rank = int((others > scores[-1]).sum()) + 1 if reached else None
    return Opinion(name, rank, _count(before), float(scores[-1]), False)


def _judged(thought: Opinion, kept: Opinion, worth: Tensor | None, place: int) -> Opinion:
    """With the rank that an item really got, where it went on."""
    assert thought.score is not None
    score = thought.score if worth is None else thought.score * float(worth[place])
    if not kept.kept:
        rank = thought.rank if worth is None else None
        return thought._replace(score=score, rank=rank)
    return thought._replace(score=score, rank=kept.rank, kept=True)


def _of(stage: Stage, place: int) -> Opinion:
    """Where an item stands in what a stage left."""
    column = (stage.items[0] == place).nonzero()
    if not len(column):
        return Opinion(stage.name, None, _count(stage), None, False)
    at = int(column[0])
    return Opinion(stage.name, at + 1, _count(stage), float(stage.scores[0, at]), True)


def _count(stage: Stage) -> int:
    return int((stage.items[0] >= 0).sum())


def fate(opinions: pa.Table, k: int) -> str:
    """What became of an item, in a sentence, from `explain_item`."""
    every = [Opinion(**row) for row in opinions.to_pylist()]
    merged = [opinion.stage for opinion in every].index(CANDIDATES)
    finders = [opinion for opinion in every[:merged] if opinion.kept]
    if not finders:
        return "no generator found it within its budget"
    by = " and ".join(f"{opinion.stage} (rank {opinion.rank})" for opinion in finders)
    for opinion in every[merged + 1 :]:
        if not opinion.kept:
            rank = "" if opinion.rank is None else f" at rank {opinion.rank} of {opinion.of}"
            lost = "is dropped by" if opinion.stage == COARSE else f"is not among the first {k} of"
            return f"found by {by}, it {lost} {opinion.stage}{rank}"
    return f"found by {by}, it is shown at rank {every[-1].rank}"
