"""Fallback: what a generator answers where it knows nothing of a history. B requests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.ids import as_ids
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.inputs.raw import reading
from recsys.serving.listed import Listed, stacked
from recsys.serving.manifest import FallbackRecord
from recsys.serving.origins import of_segments

FALLBACK = "fallback.parquet"
ITEM, SCORE, SEGMENT = "item", "score", "segment"
_BEGINNING = 1000  # of a list: more than is shown to anybody


class Popular(NamedTuple):
    """n places among a generator's items, best first, and their scores."""

    places: Tensor
    scores: Tensor

    def top(self, k: int, allowed: Tensor | None) -> Popular:
        """The first k of those that are `allowed` [N]."""
        if allowed is None:
            return Popular(self.places[:k], self.scores[:k])
        kept = allowed[self.places].nonzero().squeeze(1)[:k]
        return Popular(self.places[kept], self.scores[kept])


class PopularFile:
    """A list of raw ids, best first, which are looked up among a generator's items when they are
    asked for: mostly its first ones, and the rest where some are not allowed."""

    def __init__(self, ids: pa.Array, scores: Tensor, item_ids: pa.Array) -> None:
        self._ids, self._scores, self._item_ids = ids, scores, item_ids

    def top(self, k: int, allowed: Tensor | None) -> Popular:
        """As `Popular.top`."""
        few = allowed is None and k <= _BEGINNING
        return (self._beginning if few else self._whole).top(k, allowed)

    @cached_property
    def _beginning(self) -> Popular:
        """One pass over the items, without a table of all of them."""
        ids = self._ids[:_BEGINNING]
        of_items = pc.index_in(self._item_ids, value_set=ids)
        places = np.full(len(ids), -1)
        there = np.flatnonzero(of_items.is_valid())
        places[np.asarray(of_items.drop_null())] = there
        return Popular(torch.from_numpy(places), self._scores[: len(ids)])

    @cached_property
    def _whole(self) -> Popular:
        places = Vocabulary(self._item_ids).encode(self._ids) - 1
        return Popular(torch.from_numpy(places), self._scores)


@dataclass(frozen=True)
class Fallback:
    """One list for `everybody`; and where users have segments, which a column of theirs says, `by`,
    the beginning of a list for each of them.

    The rest of a segment's list is everybody's, whose scores count `share` of what they say there.
    """

    everybody: Popular | PopularFile
    by: str | None
    segments: Vocabulary
    of_segment: tuple[Popular, ...]
    share: float

    @classmethod
    def read(cls, path: Path, item_ids: pa.Array, record: FallbackRecord) -> Self:
        """The lists in a file, as places among `item_ids`."""
        table = read_parquet(path)
        ids = table.column(ITEM).combine_chunks()
        scores = torch.tensor(table.column(SCORE).to_numpy(), dtype=torch.float32)
        if record.by is None:
            everybody = PopularFile(as_ids(ids, item_ids.type), scores, item_ids)
            return cls(everybody, None, Vocabulary(pa.array([], pa.string())), (), 0)
        places = torch.from_numpy(Vocabulary(item_ids).encode(ids) - 1)
        column = table.column(SEGMENT).combine_chunks()
        segments = Vocabulary(pc.unique(column).drop_null())
        rows = torch.from_numpy(segments.encode(column).copy())
        first, *own = (
            Popular(places[rows == row], scores[rows == row]) for row in range(len(segments))
        )
        return cls(first, record.by, segments, tuple(own), record.share)

    def segments_of(self, requests: pa.Table) -> np.ndarray:
        """The segment of each request [B], from 1; 0 where it is unknown, or has no list.

        Raises DataError for a column of another type.
        """
        if self.by is None or self.by not in requests.column_names:
            return np.zeros(requests.num_rows, dtype=np.int64)
        with reading(self.by):
            return self.segments.encode(requests.column(self.by))

    def top(self, segments: np.ndarray, k: int, allowed: Tensor | None = None) -> Listed:
        """Lists for requests of `segments` [B], of the items that are `allowed` [n], by default of
        all; k is cut to their number."""
        distinct, rows = np.unique(segments, return_inverse=True)
        lists = []
        for segment in distinct.tolist():
            places, scores = self._top(segment, k, allowed)
            lists.append(Listed(scores, places, torch.full_like(places, of_segments(segment))))
        whole = stacked([Listed(*(column[None] for column in of)) for of in lists])
        return Listed(*(column[torch.from_numpy(rows)] for column in whole))

    def _top(self, segment: int, k: int, allowed: Tensor | None) -> Popular:
        if not segment:
            return self.everybody.top(k, allowed)
        beginning = self.of_segment[segment - 1]
        own = beginning.top(k, allowed)
        if len(own.places) == k:
            return own
        others = self.everybody.top(k, allowed)
        rest = ~torch.isin(others.places, beginning.places)
        places = torch.cat([own.places, others.places[rest]])[:k]
        return Popular(places, torch.cat([own.scores, others.scores[rest] * self.share])[:k])
