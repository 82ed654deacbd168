"""The items of a user's events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.ids import as_ids
from recsys.inputs.base import EncodedRows, Input, list_dimensions
from recsys.inputs.raw import Vocabularies, ids_of_rows, typed_lists
from recsys.inputs.requests import Requests


@dataclass(frozen=True)
class History(Input):
    """Rows [B, L] of the feature `item`, oldest first, padded with 0 behind.

    A request may have several by name, such as clicks and purchases.
    """

    item: str
    length: int | None = None
    name: str = HISTORY
    paces: ClassVar[bool] = True

    @property
    def feature(self) -> str:
        """The item."""
        return self.item

    def from_batch(self, batch: EncodedRows) -> Tensor:
        """[B, L] int64."""
        return batch.padded(self.name, self.length)

    def from_requests(self, requests: Requests) -> Tensor:
        """[B, L] int64; items that are not known are left out."""
        return torch.from_numpy(requests.encoded(self.name, self.item).padded(self.length))

    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """Lists of ids of the log's type."""
        kind = vocabularies[self.item].type
        return typed_lists(raw, kind, partial(as_ids, kind=kind))

    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Lists of item ids."""
        return ids_of_rows(rows, self.name, vocabularies[self.item])

    def along_sequence(self) -> History:
        """One event longer: the last one is a target alone."""
        return self if self.length is None else replace(self, length=self.length + 1)

    def dimensions(self) -> dict[int, torch.export.Dim]:
        """The requests, and the longest history."""
        return list_dimensions(self.name, self.length)
