"""Golden requests: kept with the training stack's answers, and asked again on loading."""

from __future__ import annotations

from typing import Any

GOLDEN = "golden.parquet"
TOLERANCE = 1e-3  # of scores and logits, between the eager model and the exported one


def expected_of(task: str) -> str:
    """The column of golden requests with the training stack's logits of a task."""
    return f"expected_logit.{task}"  # no feature has a dot in its name


def same_list(
    ids: list[Any], scores: list[float], other_ids: list[Any], other_scores: list[float]
) -> bool:
    """Whether two answers are the same list, up to the order of items with equal scores.

    Scores may differ by `TOLERANCE` of the largest; an item may stand elsewhere only among
    items whose scores are that close, and at the end of the list may be replaced by such a one.
    """
    if len(ids) != len(other_ids):
        return False
    if not ids:
        return True
    slack = TOLERANCE * max(1.0, max(abs(s) for s in scores))
    place = {item: i for i, item in enumerate(ids)}
    for i, (item, score) in enumerate(zip(other_ids, other_scores, strict=True)):
        there = scores[place[item]] if item in place else scores[-1]
        if abs(scores[i] - score) > slack or abs(there - score) > slack:
            return False
    return True
