"""Queries of two versions of a model against the items of both, and a go or no-go.

B requests, K interests, N items, k places of a list. Items of all galleries are told apart by
numbers that they share.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.compatible.mixed import Calibration, mixed_items, mixed_queries, renewed_first
from recsys.compatible.overlap import rank_biased_overlap
from recsys.lists.merging import Merge
from recsys.lists.search import search
from recsys.statistics.bootstrap import mean_intervals

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CELLS = tuple(f"{queries}/{items}" for queries, items in product(("old", "new"), repeat=2))
DEPTH = 50  # places of the lists whose overlap is measured, at least
_ROUNDING = 1e-12


class Asked(NamedTuple):
    """Vectors [B, K, D] and weights [B, K] of what a model asks."""

    vectors: Tensor
    weights: Tensor
    merge: Merge


class Gallery(NamedTuple):
    """Items' vectors [N, D], and their numbers [N]."""

    vectors: Tensor
    numbers: Tensor


class Requests(NamedTuple):
    """Numbers of what each user has had [B, L] and of what is right [B, T], padded with -1."""

    seen: Tensor
    targets: Tensor


class Halves(NamedTuple):
    """The same N items in both forms, in one order: as they lie in the old index `stored`, and
    `new`; and what a new query asks of each."""

    stored: Tensor
    new: Tensor
    numbers: Tensor
    asked: Asked
    own: Asked


class Estimate(NamedTuple):
    """A mean over requests and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Estimate:
        """Of values [B]."""
        low, high = mean_intervals(values[:, None])
        return cls(float(values.mean()), float(low[0]), float(high[0]))


class Mixed(NamedTuple):
    """An index of which a `share` is re-embedded: recall of new queries with calibrated scores and
    with scores as they are, and of old queries, to whom new items stand in the old space; None
    where they cannot ask."""

    share: float
    recall: float
    uncalibrated: float
    old_queries: float | None


class Spread(NamedTuple):
    """Mean and standard deviation of the scores of all pairs of a request and an item."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Compatibility:
    """What an upgrade is worth, before anything is replaced.

    Attributes:
        k: places of the lists that are judged; `requests` were asked, `items` lie in the old index.
        cells: recall@k by "queries/items".
        gain: of new queries over old ones on the old index, request by request.
        flips: share of the requests that the old model gets right, and the new one on the old
            index (`new/old`), or on its own (`new/new`), does not.
        overlap: RBO of the lists with those of today, likewise; `persistence` is its p.
        mixed: by the share that is re-embedded.
        scores: of new queries with old items as they lie, calibrated, and with new items.
        reasons: why not to go; none means go.
        notes: what a reader must know besides.
    """

    k: int
    requests: int
    items: int
    method: str | None
    cells: dict[str, Estimate]
    gain: Estimate
    flips: dict[str, float]
    overlap: dict[str, float]
    persistence: float
    mixed: tuple[Mixed, ...]
    scores: dict[str, Spread]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def go(self) -> bool:
        """Whether the new model may answer from the old index."""
        return not self.reasons

    @property
    def strict(self) -> bool:
        """The empirical compatibility criterion (Shen et al., "Towards backward-compatible
        representation learning", CVPR 2020): new queries find more in the old index than old ones.
        """
        return self.gain.value > _ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "go": self.go,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "method": self.method,
            "k": self.k,
            "requests": self.requests,
            "items": self.items,
            "recall": {cell: estimate._asdict() for cell, estimate in self.cells.items()},
            "strict": self.strict,
            "gain": self.gain._asdict(),
            "negative_flips": self.flips,
            "overlap": {"p": self.persistence, **self.overlap},
            "mixed": [share._asdict() for share in self.mixed],
            "scores": {half: spread._asdict() for half, spread in self.scores.items()},
        }


def compare(
    asked: dict[str, Asked],
    galleries: dict[str, Gallery],
    requests: Requests,
    *,
    k: int = 10,
    persistence: float = 0.9,
    halves: Halves | None = None,
    calibration: Calibration | None = None,
    method: str | None = None,
    notes: tuple[str, ...] = (),
) -> Compatibility:
    """Ask every gallery, by cell such as "new/old", what is asked of it.

    `halves` are needed for mixed indexes, and `calibration` makes their scores comparable. Without
    a `method` the models have no map between their spaces, and the answer is no.
    """
    # what no list could hold says nothing about what two of them share
    depth = max(k, min(DEPTH, *(len(gallery.numbers) for gallery in galleries.values())))
    lists = {cell: lists_of(asked[cell], galleries[cell], requests.seen, depth) for cell in CELLS}
    recall = {cell: recalls(lists[cell], requests.targets, k) for cell in CELLS}
    cells = {cell: Estimate.of(values) for cell, values in recall.items()}
    right = {cell: values > 0 for cell, values in recall.items()}
    replaced = ("new/old", "new/new")
    mixed: tuple[Mixed, ...] = ()
    scores: dict[str, Spread] = {}
    if halves is not None:
        calibration = calibration or Calibration()
        old = None if method is None else (asked["old/new"], galleries)
        mixed = _mixed(halves, calibration, requests, k, old)
        scores = _scores(halves, calibration)
    gain = Estimate.of(recall["new/old"] - recall["old/old"])
    return Compatibility(
        k=k,
        requests=len(requests.targets),
        items=len(galleries["old/old"].numbers),
        method=method,
        cells=cells,
        gain=gain,
        flips={cell: float((right["old/old"] & ~right[cell]).mean()) for cell in replaced},
        overlap={
            cell: float(rank_biased_overlap(lists["old/old"], lists[cell], persistence).mean())
            for cell in replaced
        },
        persistence=persistence,
        mixed=mixed,
        scores=scores,
        reasons=_reasons(method, cells, gain, mixed),
        notes=notes,
    )


def lists_of(asked: Asked, gallery: Gallery, seen: Tensor, k: int) -> np.ndarray:
    """Numbers [B, k] of the best items that are not `seen` [B, L], -1 for none."""
    place = torch.full((int(max(seen.max(), gallery.numbers.max())) + 2,), -1)
    place[gallery.numbers] = torch.arange(len(gallery.numbers))  # that of -1 is the last: none
    vectors, weights, merge = asked
    _, places = search(vectors, weights, gallery.vectors, k, place[seen], merge)
    numbers = torch.cat([gallery.numbers, gallery.numbers.new_tensor([-1])])[places]
    return torch.nn.functional.pad(numbers, (0, k - numbers.shape[1]), value=-1).numpy()


def recalls(lists: np.ndarray, targets: Tensor, k: int) -> np.ndarray:
    """Share [B] of each request's targets [B, T] among the first k of its list."""
    wanted = targets.numpy()
    hits = (lists[:, :k, None] == wanted[:, None, :]) & (wanted >= 0)[:, None, :]
    shares: np.ndarray = hits.any(1).sum(1) / np.maximum((wanted >= 0).sum(1), 1)
    return shares


def _mixed(
    halves: Halves,
    calibration: Calibration,
    requests: Requests,
    k: int,
    old: tuple[Asked, dict[str, Gallery]] | None,
) -> tuple[Mixed, ...]:
    stored, new, numbers, asked, own = halves
    both = own._replace(vectors=mixed_queries(asked.vectors, own.vectors))

    def recall(queries: Asked, vectors: Tensor) -> float:
        lists = lists_of(queries, Gallery(vectors, numbers), requests.seen, k)
        return float(recalls(lists, requests.targets, k).mean())

    answers = []
    for share in SHARES:
        renewed = renewed_first(len(numbers), share)
        plain, calibrated = (
            recall(both, mixed_items(stored, new, renewed, scale))
            for scale in (Calibration(), calibration)
        )
        of_old = None
        if old is not None:
            of_old = recall(old[0], _in_old_space(old[1], numbers, renewed))
        answers.append(Mixed(share, calibrated, plain, of_old))
    return tuple(answers)


def _in_old_space(galleries: dict[str, Gallery], numbers: Tensor, renewed: Tensor) -> Tensor:
    """Vectors [N, d_old] of items by their numbers [N], the new ones where they are `renewed` or
    where the old index has none."""
    old, new = galleries["old/old"], galleries["old/new"]
    size = int(torch.cat([old.numbers, new.numbers]).max()) + 1
    vectors = old.vectors.new_zeros(2, size, old.vectors.shape[1])
    vectors[0, old.numbers], vectors[1, new.numbers] = old.vectors, new.vectors
    there = torch.zeros(size, dtype=torch.bool)
    there[old.numbers] = True
    chosen = renewed | ~there[numbers]
    return torch.where(chosen.unsqueeze(1), vectors[1, numbers], vectors[0, numbers])


def _scores(halves: Halves, calibration: Calibration) -> dict[str, Spread]:
    before, after = (
        asked.vectors.flatten(0, 1) @ items.T
        for asked, items in ((halves.asked, halves.stored), (halves.own, halves.new))
    )
    kinds = {"old": before, "old_calibrated": calibration(before), "new": after}
    return {kind: Spread(float(s.mean()), float(s.std())) for kind, s in kinds.items()}


def _reasons(
    method: str | None, cells: dict[str, Estimate], gain: Estimate, mixed: tuple[Mixed, ...]
) -> tuple[str, ...]:
    if method is None:
        return (
            "the models' spaces have nothing to do with each other: give the new run a section "
            "[compatible_with], or re-embed all items and exchange model and index at once",
        )
    old, reasons = cells["old/old"].value, []
    if gain.value <= _ROUNDING:
        reasons.append(
            f"new queries find {cells['new/old'].value:.4f} in the old index, and old ones "
            f"{old:.4f}: users would be served worse than today"
        )
    lowest = min(mixed, key=lambda each: each.recall, default=None)
    if lowest is not None and lowest.recall < old - _ROUNDING:
        reasons.append(
            f"with {lowest.share:.0%} of the items re-embedded recall falls to "
            f"{lowest.recall:.4f}, below {old:.4f} of today: keep the old index, or exchange it "
            "at once"
        )
    return tuple(reasons)
