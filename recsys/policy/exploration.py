"""Exploration: lists that now and then show something else, and exactly how probable that was.

B requests, M candidates of each, k places. Without chance in what is shown, no log can tell what
another policy would have been worth: see `recsys.evaluation.off_policy`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field, model_validator

from feature_store.errors import DataError
from feature_store.options import Options
from recsys.policy.noise import uniform
from recsys.policy.plackett_luce import at_place, draw, log_given_prefix


class Exploration(Options):
    """How lists explore: a `share` of them keeps its first places and draws the others, one after
    the other, from the candidates that are left.

    The two usual ways are epsilon-greedy lists, a small share drawn uniformly (no temperature), and
    Plackett-Luce: all lists (share 1), drawn by softmax of scores / temperature.
    """

    share: float = Field(
        1.0, ge=0, le=1, description="Of lists that explore; the others are the best k."
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Of the softmax, in units of scores: the larger, the more even. By default all "
        "candidates are alike.",
    )
    keep: int = Field(0, ge=0, description="First places, which stay as they are.")
    pool: int = Field(50, ge=1, description="Candidates, the best ones, that are drawn from.")

    @model_validator(mode="after")
    def _check(self) -> Exploration:
        if self.keep >= self.pool:
            raise ValueError(f"keep ({self.keep}) leaves nothing of the pool ({self.pool}) to draw")
        return self


class Propensities(NamedTuple):
    """Probabilities of what was shown, each [B, k]; 1 where a list has ended.

    Attributes:
        given: of the item at its place, given the items before it. Their product along a list is
            the probability of the whole list.
        at_place: of the item at its place, whatever stands before it.
    """

    given: np.ndarray
    at_place: np.ndarray

    @property
    def of_list(self) -> np.ndarray:
        """Of the whole ordered list [B]."""
        return self.given.prod(axis=1)


class Explored(NamedTuple):
    """What to show: candidates [B, k], -1 where a list ends, and how probable that was."""

    places: np.ndarray
    propensities: Propensities


def explored(
    places: np.ndarray,
    scores: np.ndarray,
    k: int,
    how: Exploration | None,
    seeds: np.ndarray,
) -> Explored:
    """Lists of k, drawn as `how` says; None: the best k, each with probability 1.

    Args:
        places: [B, M] candidates, best first, without repeats, -1 for none; only the first
            `how.pool` of them take part, so at least so many should be asked for.
        scores: [B, M], finite, of whichever candidates there are.
        k: places of a list; cut to the candidates.
        seeds: [B] integers: a request's draws follow from its own alone, whatever is asked beside
            it. See `recsys.policy.noise.seeds_of`.

    Raises:
        DataError: shapes that differ, scores that are not finite, a list longer than the pool.
    """
    places, scores = np.asarray(places), np.asarray(scores, dtype=np.float64)
    seeds = np.asarray(seeds)
    if places.ndim != 2 or places.shape != scores.shape or seeds.shape != places.shape[:1]:
        raise DataError(
            f"candidates {places.shape}, scores {scores.shape} and seeds {seeds.shape} must be "
            "[B, M], [B, M] and [B]"
        )
    if k < 1:
        raise DataError(f"k must be at least 1, not {k}")
    if how is None:
        best = places[:, :k]
        sure = np.ones(best.shape)
        return Explored(best, Propensities(sure, sure.copy()))
    if k > how.pool:
        raise DataError(f"{k} places cannot be filled from a pool of {how.pool}: raise pool")
    places, scores = places[:, : how.pool], scores[:, : how.pool]
    if not np.isfinite(scores[places >= 0]).all():
        raise DataError("scores of candidates must be finite to explore by")
    return _explored(places, scores, min(k, places.shape[1]), how, seeds)


def _explored(
    places: np.ndarray, scores: np.ndarray, k: int, how: Exploration, seeds: np.ndarray
) -> Explored:
    count, width = places.shape
    logits = np.zeros(scores.shape) if how.temperature is None else scores / how.temperature
    logits = np.where(places >= 0, logits, -np.inf)
    logits[:, : how.keep] = -np.inf
    noise = uniform(seeds, 1 + width)
    exploring = noise[:, 0] < how.share
    greedy = np.broadcast_to(np.arange(k), (count, k))
    kept = min(how.keep, k)
    drawn = draw(logits, noise[:, 1:], k - kept)
    drawn = np.where(exploring[:, None], drawn, greedy[:, kept:])
    columns = np.hstack([greedy[:, :kept], drawn])
    shown = np.take_along_axis(places, columns, axis=1)
    given, marginal = np.ones((count, k)), np.ones((count, k))
    given[:, kept:] = _mixed_given(log_given_prefix(logits, drawn), drawn, greedy[:, kept:], how)
    of_draws = _evenly(logits, drawn) if how.temperature is None else at_place(logits, drawn)
    best = (drawn == greedy[:, kept:]).astype(np.float64)
    marginal[:, kept:] = how.share * of_draws + (1 - how.share) * best
    gone = shown < 0
    given[gone], marginal[gone] = 1.0, 1.0
    return Explored(shown, Propensities(given, marginal))


def _mixed_given(
    log_given: np.ndarray, drawn: np.ndarray, greedy: np.ndarray, how: Exploration
) -> np.ndarray:
    """[B, s] of lists that are drawn with probability `share`, and greedy otherwise: while a list
    is the greedy one, it may be either, and how probable each is changes from place to place."""
    with np.errstate(divide="ignore"):
        best = np.where(np.cumprod(drawn == greedy, axis=1), np.log(1 - how.share), -np.inf)
        prefix = np.logaddexp(best, np.log(how.share) + np.cumsum(log_given, axis=1))
    return np.exp(np.diff(prefix, axis=1, prepend=0.0))


def _evenly(logits: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """[B, s] where all candidates are alike: each is as probable at every place."""
    there = (logits > -np.inf).sum(axis=1, keepdims=True)
    return np.broadcast_to(1 / np.maximum(there, 1), drawn.shape)
