"""A number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.ids import plain
from recsys.inputs.base import EncodedRows, Input
from recsys.inputs.raw import Vocabularies, reading
from recsys.inputs.requests import Requests

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Number(Input):
    """A number [B] of float32; where it is unknown NaN, which the model fills, or 0, as models of
    bundles that say nothing of it expect."""

    name: str
    unknown: Literal["nan", "zero"] = "zero"

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B]."""
        return batch.column(self.name)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B]."""
        fill = np.float32(np.nan if self.unknown == "nan" else 0)
        if self.name not in requests:
            return torch.full((len(requests),), float(fill))
        with reading(self.name):
            column = requests.column(self.name).cast(pa.float64(), safe=False)  # the nearest ones
            values = column.to_numpy(False).astype(np.float32)  # null: NaN
        return torch.from_numpy(np.where(np.isnan(values), fill, values))

    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """Numbers of 64 bits, which 32 can hold nearly, too."""
        numbers = plain(raw).cast(pa.float64(), safe=False)
        large = numbers.filter(pc.greater(pc.abs(numbers), _LARGEST))
        if len(large):
            raise ValueError(f"{large[0].as_py()} is too large")
        return numbers

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Numbers, null where unknown."""
        values = rows.column(self.name).combine_chunks()
        return pc.if_else(pc.is_nan(values), None, values)
