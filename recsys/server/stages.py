"""What each stage of a cascade left of a question."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from recsys.server.listing import items_of
from recsys.server.live import Live
from recsys.server.models import StageAnswer
from recsys.serving.cascade import Cascade


def stages_of(
    live: Live, requests: pa.Table, k: int, include_seen: bool, **filters: Any
) -> list[list[StageAnswer]]:
    """The first k that each stage left of each of B requests; of a bundle without a cascade
    nothing."""
    recommender = live.recommends()
    if not isinstance(recommender.finder, Cascade):
        return [[] for _ in range(requests.num_rows)]
    cascade = recommender.finder
    asked, seen = recommender.asked_of(requests)
    allowed = recommender.allowed_of(**filters)
    left: list[list[StageAnswer]] = [[] for _ in range(requests.num_rows)]
    for stage in cascade.stages(asked, k, None if include_seen else seen, allowed):
        items, scores = stage.items[:, :k], stage.scores[:, :k]
        listed = items_of(cascade.item_ids, recommender.catalogue, items, scores)
        for answer, of_stage in zip(left, listed, strict=True):
            answer.append({"stage": stage.name, "items": of_stage})
    return left
