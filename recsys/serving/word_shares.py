"""What the words of a history and of an item add to the score of the one for the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Said(NamedTuple):
    """Words of an item, each with what it adds: in the order of its text where that is known."""

    item: Any
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class Side:
    """The history, its newest item first, or the item that is asked about; items without a word are
    left out. `base` is what there is with none of the words."""

    items: list[Said]
    base: float

    @property
    def score(self) -> float:
        """The sum of all."""
        return self.base + sum(added for said in self.items for _, added in said.words)


class WordShares(NamedTuple):
    """Both sides, each of which sums to the score."""

    history: Side
    item: Side
