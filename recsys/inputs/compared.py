"""A number beside those that its item was shown with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.columns import LAST_TOUCHED, compared_of
from feature_store.in_lists import in_lists
from recsys.inputs.number import Number
from recsys.inputs.raw import reading
from recsys.inputs.requests import Requests


@dataclass(frozen=True)
class Compared(Number):
    """The number called `of`, compared by `way` with the others of its `list`: [B] of float32, NaN
    where that is unknown; see `in_lists`.

    Requests with the same value of `list` were shown together. They bring the number and, where it
    is known, as `last_touched` how many events ago the user touched the item, 0 for never; or what
    comes of that, as a column of the input's own name.
    """

    name: str = ""
    unknown: Literal["nan", "zero"] = "nan"
    of: str = ""
    way: str = ""
    list: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", compared_of(self.of, self.way))

    def from_requests(self, requests: Requests) -> Tensor:
        """[B]."""
        if self.name in requests or self.of not in requests or self.list not in requests:
            return super().from_requests(requests)
        values = Number(self.of, unknown="nan").from_requests(requests).numpy()
        touched = Number(LAST_TOUCHED).from_requests(requests).numpy()
        with reading(self.list):
            codes = requests.column(self.list).dictionary_encode().indices
            lists = pc.add(codes.cast(pa.int64()), 1).fill_null(0).to_numpy(False)
        return torch.from_numpy(in_lists(self.of, values, lists, touched)[self.name])
