"""Input: what a model wants to know of a request, the same in training and in serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Input:
    """One tensor of a request.

    `sequence` and `bag`: rows or seconds [B, L], the last `length` values, padded with 0 behind;
    `id`: a row [B]; `dense`: a number [B].
    """

    name: str
    kind: Literal["sequence", "bag", "id", "dense"]
    length: int | None = None
