"""Several ids in no order, such as the tags of a user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.ids import as_ids
from recsys.inputs.base import EncodedRows, Input, list_dimensions
from recsys.inputs.raw import Vocabularies, ids_of_rows, typed_lists
from recsys.inputs.requests import Requests


@dataclass(frozen=True)
class Bag(Input):
    """Rows [B, L] of the feature that it is named after, padded with 0 behind."""

    name: str
    length: int | None = None

    @property
    def feature(self) -> str:
        """The feature itself."""
        return self.name

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B, L] int64."""
        return batch.padded(self.name, self.length)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B, L] int64; ids that are not known are left out."""
        return torch.from_numpy(requests.encoded(self.name, self.name).padded(self.length))

    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """Lists of ids of the log's type."""
        kind = vocabularies[self.name].type
        return typed_lists(raw, kind, partial(as_ids, kind=kind))

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Lists of ids."""
        return ids_of_rows(rows, self.name, vocabularies[self.name])

    def dimensions(self) -> dict[int, torch.export.Dim]:
        """The requests, and the largest bag."""
        return list_dimensions(self.name, self.length)
