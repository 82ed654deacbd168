"""Lists before they are shown: explored now and then, and written down with how probable they were.

B questions, M candidates, k places.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.schema import Schema
from recsys.policy.exploration import Exploration, Propensities, explored
from recsys.policy.exposure_log import ExposureLog
from recsys.policy.exposures import CLICK, PURCHASE, exposure_schema_of, exposures
from recsys.policy.noise import seeds_of
from recsys.server.live import Live
from recsys.serving.recommender import Answers

_SYNC_S = 1.0  # a machine that loses power loses what was shown in the last second


class Shown(NamedTuple):
    """What is shown: places and scores [B, k], and the id of each list [B]."""

    places: Tensor
    scores: Tensor
    lists: list[str]


class Showing:
    """Shows the best k or, where it explores, draws from the best candidates; writes both to a log
    of exposures that `recsys ingest` takes."""

    def __init__(self, explore: Exploration | None, folder: Path, schema: Schema) -> None:
        self._explore = explore
        self._log = ExposureLog(folder, exposure_schema_of(schema), sync_s=_SYNC_S)

    def pool(self, k: int) -> int:
        """Candidates that are asked for, to show k."""
        return k if self._explore is None else max(k, self._explore.pool)

    def show(self, live: Live, arm: str, users: pa.Array, answers: Answers, k: int) -> Shown:
        """What to show of `answers` [B, M] to `users` [B], raw ids; null for nobody in particular,
        of whom nothing is written. The fallback, which is the same for all, is not explored.

        Raises DataError where a list is longer than what is drawn from.
        """
        lists = _new_ids(len(users))
        pool, scores = answers.places.numpy(), answers.scores.numpy()
        seeds = seeds_of(pa.array(lists), "")
        best = explored(pool, scores, k, None, seeds)
        places, given, at_place = best.places, *best.propensities
        explores = ~answers.fallback.numpy()
        if self._explore is not None and explores.any():
            drawn = explored(pool[explores], scores[explores], k, self._explore, seeds[explores])
            places, given, at_place = places.copy(), given.copy(), at_place.copy()
            places[explores], given[explores], at_place[explores] = (
                drawn.places,
                drawn.propensities.given,
                drawn.propensities.at_place,
            )
        self._log.write(
            exposures(
                self._log.columns,
                users=users,
                items=live.recommends().finder.item_ids,
                places=places,
                propensities=Propensities(given, at_place),
                times=pa.array([datetime.now(UTC).replace(tzinfo=None)] * len(lists)),
                lists=lists,
                arms=[arm] * len(lists),
                bundles=[live.version] * len(lists),
            )
        )
        shown = torch.from_numpy(places)
        own = answers.scores.gather(1, columns_of(shown, answers.places))
        return Shown(shown, own.masked_fill(shown < 0, float("-inf")), lists)

    def add(self, events: pa.Table, schema: Schema) -> None:
        """Write the clicks and purchases among events, which have the log's columns.

        Raises DataError where one does not fit.
        """
        names = {schema.user: "user", schema.item: "item", schema.time: "time"}
        for ours, theirs in (
            ("event_type", schema.event_type),
            ("price", schema.price),
            ("quantity", schema.quantity),
        ):
            if theirs is not None:
                names[theirs] = ours
        table = events.rename_columns([names.get(name, name) for name in events.column_names])
        if "event_type" not in table.column_names:
            return
        types = table.column("event_type").to_pylist()
        table = table.filter(pa.array([kind in (CLICK, PURCHASE) for kind in types]))
        self._log.write(
            table.select([name for name in table.column_names if name in self._log.columns.names])
        )

    def close(self) -> None:
        """Publish what was written."""
        self._log.close()


def columns_of(places: Tensor, pool: Tensor) -> Tensor:
    """Where each of `places` [B, k] stands in its row of the `pool` [B, M]: [B, k]."""
    return (places.unsqueeze(2) == pool.unsqueeze(1)).byte().argmax(2)


def _new_ids(count: int) -> list[str]:
    digits = os.urandom(16 * count).hex()
    return [digits[place : place + 32] for place in range(0, len(digits), 32)]
