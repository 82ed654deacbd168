"""Figures by name: `NDCG@10` is a metric at a cut-off, `Recall@10|items=cold` that of a slice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

_LESS_IS_BETTER = frozenset({"LogLoss", "NormalisedEntropy", "ECE"})
FIRST = ("Recall", "NDCG", "Coverage", "GMV", "GMVCapture", "Profit", "ProfitCapture")
"""What people look at first of lists, where it is measured."""
_USUAL_K = 10  # the cut-off that people look at first


class Figure(NamedTuple):
    """What is measured: a metric by its `name`, at the cut-off `k` where it has one, and of which
    slice, such as `items=cold`, where not of everything.

    As text it is what `metrics.json` calls it.
    """

    name: str
    k: int | None = None
    slice: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a text stands for; any text is the name of something."""
        whole, _, part = text.partition("|")
        name, _, k = whole.rpartition("@")
        if name and k.isdigit():
            return cls(name, int(k), part or None)
        return cls(whole, None, part or None)

    def __str__(self) -> str:
        cut = "" if self.k is None else f"@{self.k}"
        return f"{self.name}{cut}" + ("" if self.slice is None else f"|{self.slice}")

    @property
    def less_is_better(self) -> bool:
        """Whether the lowest value wins."""
        return self.name in _LESS_IS_BETTER

    def improves(self, value: float, other: float) -> bool:
        """Whether a value is better than another; NaN is not."""
        return value < other if self.less_is_better else value > other


def cut_offs(figures: Iterable[Figure]) -> list[int]:
    """The cut-offs of all of them, ascending."""
    return sorted({figure.k for figure in figures if figure.k is not None})


def first_cut(ks: Iterable[int]) -> int:
    """The one of `ks` that is shown where there is room for one: 10, or the last."""
    known = sorted(ks)
    return _USUAL_K if _USUAL_K in known else known[-1]


def looked_at_first(names: Iterable[str], *also: str) -> list[str]:
    """Of figures by name those that people look at first: of lists `FIRST` at one cut-off, of
    predictions all; and what is named `also`, where it is among them."""
    every = list(names)
    cuts = cut_offs(map(Figure.parse, every))
    if not cuts:
        return every
    first = {str(Figure(name, first_cut(cuts))) for name in FIRST}
    return [name for name in every if name in first or name in also]
