"""A batch of questions for items near others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from feature_store.errors import DataError
from recsys.server.isolating import each_alone
from recsys.server.listing import items_of
from recsys.server.live import Live
from recsys.server.models import SimilarAnswer
from recsys.server.rows import ids_as


class Near(NamedTuple):
    """An item, and how many near it are asked for."""

    item: int | str
    k: int


def similar(live: Live, wanted: Sequence[Near]) -> list[SimilarAnswer | Exception]:
    """An answer for each item, or its own error."""
    answers: list[SimilarAnswer | Exception] = [KeyError()] * len(wanted)
    for k in dict.fromkeys(each.k for each in wanted):
        places = [place for place, each in enumerate(wanted) if each.k == k]
        items = [wanted[place].item for place in places]
        for place, answer in zip(places, each_alone(partial(_near, live, k), items), strict=True):
            answers[place] = answer
    return answers


def _near(live: Live, k: int, items: Sequence[int | str]) -> list[SimilarAnswer]:
    neighbours = live.finds_similar()
    vocabulary = neighbours.vocabulary
    places = vocabulary.encode(ids_as(items, vocabulary.values.type, "items")) - 1
    if (places < 0).any():
        unknown = items[int((places < 0).argmax())]
        raise DataError(f"items: no item {str(unknown)[:100]!r} among those that can be found")
    cosines, nearest = neighbours.of(torch.from_numpy(places), k)
    lists = items_of(vocabulary.values, neighbours.catalogue, nearest, cosines)
    return [
        {"item": item, "bundle": live.version, "items": near}
        for item, near in zip(items, lists, strict=True)
    ]
