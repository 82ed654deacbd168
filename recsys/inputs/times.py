"""When the events of a history happened."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.columns import time_of
from feature_store.errors import DataError
from recsys.inputs.base import EncodedRows, Input
from recsys.inputs.history import History
from recsys.inputs.raw import Vocabularies, reading, seconds, typed_lists, typed_seconds
from recsys.inputs.requests import Requests


@dataclass(frozen=True)
class Times(Input):
    """Seconds since 1970 [B, L] of the events `of` a history, padded with 0 behind; by default from
    the list beside that history."""

    of: History
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", time_of(self.of.name))

    @property
    def feature(self) -> str:
        """The history's: the time of an item that is not known is left out with it."""
        return self.of.feature

    @property
    def length(self) -> int | None:
        """The history's."""
        return self.of.length

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B, L] int64."""
        return batch.padded(self.name, self.length)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B, L] int64, from timestamps or seconds in a list column beside the history.

        Raises DataError where a list is not as long as the history, too.
        """
        if self.name not in requests:
            return torch.zeros_like(self.of.from_requests(requests))
        encoded = requests.encoded(self.of.name, self.of.item)
        events = encoded.lists
        with reading(self.name):
            times = requests.lists(self.name)
            odd = np.flatnonzero(np.diff(times.offsets) != np.diff(events.offsets))
            if len(odd):
                row = int(odd[0])
                raise DataError(
                    f"request {row} has {len(times[row])} values in {self.name!r} and "
                    f"{len(events[row])} in {self.of.name!r}: give one for each event"
                )
            values = seconds(pc.list_flatten(times))
        return torch.from_numpy(encoded.padded(self.length, values))

    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """Lists of whole seconds."""
        return typed_lists(raw, pa.int64(), typed_seconds)

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Lists of seconds."""
        return rows.column(self.name).combine_chunks()

    def along_sequence(self) -> Times:
        """One event longer, as the history."""
        return replace(self, of=self.of.along_sequence())

    def dimensions(self) -> dict[int, torch.export.Dim]:
        """The history's."""
        return self.of.dimensions()
