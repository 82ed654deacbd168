"""Input: what a model wants to know of a request, the same in training and in serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Input:
    """One tensor of a request.

    `sequence` and `bag`: rows [B, L], the last `length` of them, padded with 0 behind; `times`:
    seconds since 1970 [B, L] of the sequence's entries; `id`: a row [B]; `dense`: a number [B];
    `time`: seconds since 1970 [B].
    """

    name: str
    kind: Literal["sequence", "bag", "times", "id", "dense", "time"]
    length: int | None = None

    @property
    def listed(self) -> bool:
        """Whether a request has a list of it."""
        return self.kind in ("sequence", "bag", "times")
