"""When a request is made."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import TIME
from recsys.inputs.base import EncodedRows, Input
from recsys.inputs.raw import Vocabularies, reading, seconds, typed_seconds
from recsys.inputs.requests import Requests
from recsys.inputs.times import Times


@dataclass(frozen=True)
class Moment(Input):
    """Seconds since 1970 [B]; of requests that do not say, of the last event in `times`."""

    times: Times
    name: str = TIME

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B] int64."""
        return batch.id(self.name)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B] int64, from timestamps or seconds."""
        latest = self.times.from_requests(requests).amax(1)
        if self.name not in requests:
            return latest
        with reading(self.name):
            column = requests.column(self.name)
            given = torch.from_numpy(seconds(column))
            return torch.where(torch.from_numpy(column.is_valid().to_numpy(False)), given, latest)

    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """Whole seconds."""
        return typed_seconds(raw)

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Seconds."""
        return rows.column(self.name).combine_chunks()

    def along_sequence(self) -> None:
        """Each event of a sequence is asked for at its own time."""
