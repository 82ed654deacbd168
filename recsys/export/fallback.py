"""Training events -> the lists that a bundle answers with where it knows nothing of a history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.errors import ConfigError
from feature_store.schema import Schema
from recsys.data.examples import Examples
from recsys.retrievers.base import Candidates
from recsys.retrievers.popularity import PopularityConfig, RecentPopularityConfig, lately_of
from recsys.serving.manifest import FallbackRecord
from recsys.serving.options import FallbackConfig

LENGTH = 1000  # items at the beginning of a segment's list, behind which comes everybody's


class FallbackList(NamedTuple):
    """Every candidate, best first, with one row [1, n] for everybody."""

    record: FallbackRecord
    list: Candidates


class SegmentList(NamedTuple):
    """The best candidates for the users of a segment, whose raw value that is: [1, m]."""

    segment: pa.Scalar
    list: Candidates


def check_segments(config: FallbackConfig, schema: Schema) -> None:
    """Raises ConfigError where users have no column that divides them so."""
    known = [
        feature.name
        for feature in schema.of_side("user")
        if feature.kind == "id" and feature.name != schema.user
    ]
    if config.by is not None and config.by not in known:
        raise ConfigError(
            f"export.fallback.by: {config.by!r} is no column of users that holds an id each, such "
            f"as a country; there are: {', '.join(known) or 'none'}"
        )


def popular_lately(examples: Examples, candidates: Tensor) -> FallbackList:
    """Item rows [n] by their training events of the last days, as `recent_popularity` counts them;
    those with equally many by all their training events, then by row.

    In a log without times all training events count.
    """
    events, config = examples.interactions(), RecentPopularityConfig()
    timed = examples.schema.clock == "time"
    total = torch.bincount(events.items, minlength=examples.num_items).float()
    lately = total
    if timed:
        counted = events.items[lately_of(events, config.days)]
        lately = torch.bincount(counted, minlength=examples.num_items).float()
    keys = (-total[candidates], -lately[candidates])
    order = torch.from_numpy(np.lexsort([key.numpy() for key in keys]))
    rows = candidates[order]
    return FallbackList(
        FallbackRecord(
            model=config.name if timed else PopularityConfig().name,
            days=config.days if timed else None,
        ),
        Candidates(rows.unsqueeze(0), lately[rows].unsqueeze(0)),
    )


def popular_by_segment(
    examples: Examples, popular: FallbackList, config: FallbackConfig
) -> tuple[FallbackRecord, list[SegmentList]]:
    """The same for the users of every segment with at least `least` events in those days, by
    `events of the segment + least * share of everybody's events`: what few people did says less
    than what many did, by additive smoothing. Equals are in everybody's order.

    Returns the record of all lists, too.
    """
    record, (rows, lately) = popular.record, popular.list
    assert config.by is not None
    share = config.least / max(1.0, float(lately.sum()))
    record = record.model_copy(update={"by": config.by, "least": config.least, "share": share})
    ids = examples.vocabulary(config.by)
    lists = []
    for segment, counts in _counts(examples, config, record.days, rows[0]):
        scores = counts + lately[0].double() * share
        best = scores.argsort(descending=True, stable=True)[:LENGTH]
        listed = Candidates(rows[:, best], scores[best].float().unsqueeze(0))
        lists.append(SegmentList(ids.values[segment - 1], listed))
    return record, lists


def _counts(
    examples: Examples, config: FallbackConfig, days: float | None, candidates: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """The segments with enough events of `candidates` [n], and how many each of them had [n]."""
    assert config.by is not None
    events = examples.interactions()
    counted = slice(None) if days is None else lately_of(events, days)
    items, users = events.items[counted], examples.event_users()[counted]
    segments = examples.user_column(examples.schema[config.by], users)
    places = torch.full((examples.num_items,), -1)
    places[candidates] = torch.arange(len(candidates))
    kept = (places[items] >= 0) & (segments > 0)
    keys = segments[kept] * len(candidates) + places[items[kept]]
    distinct, counts = keys.unique(return_counts=True)
    segments, places = distinct // len(candidates), distinct % len(candidates)
    sizes = torch.bincount(segments, weights=counts.double())
    ends = torch.bincount(segments, minlength=len(sizes)).cumsum(0).tolist()
    for segment in (sizes >= config.least).nonzero().squeeze(1).tolist():
        own = slice(ends[segment - 1], ends[segment])
        of_segment = torch.zeros(len(candidates), dtype=torch.float64)
        of_segment[places[own]] = counts[own].double()
        yield segment, of_segment
