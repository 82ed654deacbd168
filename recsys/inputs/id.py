"""A single id."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from recsys.inputs.base import EncodedRows, Input, Vocabularies
from recsys.inputs.raw import reading


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

    def from_requests(self, requests: pa.Table, vocabularies: Vocabularies) -> Tensor:
        """[B] int64."""
        if self.name not in requests.column_names:
            return torch.zeros(requests.num_rows, dtype=torch.int64)
        with reading(self.name):
            rows = vocabularies[self.name].encode(requests.column(self.name))
        return torch.from_numpy(rows.copy())

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Ids."""
        return vocabularies[self.name].decode(rows.column(self.name).to_numpy())
