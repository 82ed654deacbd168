"""Golden requests: kept with the training stack's answers, and asked again on loading."""

from __future__ import annotations

from typing import Any

GOLDEN = "golden.parquet"
TOLERANCE = 1e-3  # of scores and logits, between the eager model and the exported one


EXPECTED_CONTRIBUTIONS, EXPECTED_BIAS = "expected.contributions", "expected.bias"
"""Columns of golden requests: no feature has a dot in its name."""


def expected_of(task: str) -> str:
    """The column of golden requests with the training stack's logits of a task."""
    return f"expected_logit.{task}"


def nearly_same_list(
    ids: list[Any], scores: list[float], other_ids: list[Any], other_scores: list[float]
) -> bool:
    """Whether two answers are the same list but for a few items that only one of them has.

    What generators and rankers cut off may turn on the last digit of a score, and then another
    item takes the place: one in ten may differ, or a single one. Those of both answers have scores
    within `TOLERANCE` of the largest.
    """
    if len(ids) != len(other_ids):
        return False
    slack = TOLERANCE * max(1.0, max((abs(score) for score in scores), default=0.0))
    expected = dict(zip(ids, scores, strict=True))
    others = dict(zip(other_ids, other_scores, strict=True))
    both = expected.keys() & others.keys()
    if len(ids) - len(both) > max(1, len(ids) // 10):
        return False
    return all(abs(expected[item] - others[item]) <= slack for item in both)


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
