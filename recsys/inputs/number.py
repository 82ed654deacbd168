"""A number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.inputs.base import EncodedRows, Input
from recsys.inputs.raw import Vocabularies, reading
from recsys.inputs.requests import Requests


@dataclass(frozen=True)
class Number(Input):
    """A number [B] of float32; 0 where it is unknown."""

    name: str

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B]."""
        return batch.column(self.name)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B]."""
        if self.name not in requests:
            return torch.zeros(len(requests))
        with reading(self.name):
            column = requests.column(self.name).cast(pa.float64(), safe=False)  # the nearest ones
            values = column.to_numpy(False).astype(np.float32)  # null: NaN
        return torch.from_numpy(np.where(np.isnan(values), np.float32(0), values))

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Numbers."""
        return rows.column(self.name).combine_chunks()
