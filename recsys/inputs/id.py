"""A single id."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.ids import as_ids
from recsys.inputs.base import EncodedRows, Input
from recsys.inputs.raw import Vocabularies, reading
from recsys.inputs.requests import Requests


@dataclass(frozen=True)
class Id(Input):
    """A row [B] of the feature that it is named after; 0 is unknown."""

    name: str

    @property
    def feature(self) -> str:
        """The feature itself."""
        return self.name

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B] int64."""
        return batch.id(self.name)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B] int64."""
        if self.name not in requests:
            return torch.zeros(len(requests), dtype=torch.int64)
        with reading(self.name):
            return torch.from_numpy(requests.ids(self.name, self.name).copy())

    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """Ids of the log's type."""
        return as_ids(raw, vocabularies[self.name].type)

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Ids."""
        return vocabularies[self.name].decode(rows.column(self.name).to_numpy())
