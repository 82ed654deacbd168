"""The cheapest index that keeps a promise of recall within so much memory.

Candidates are built on a sample and searched with rising effort until they keep the recall. The
fastest of them is built of all items and measured again; the next one is where it fails.

Clocks decide between kinds alone: within a kind it is the least effort that keeps the recall, which
no clock can change. Kinds whose speeds are within a quarter of the fastest one's are equal; among
equals the one with the fewest bytes wins, then the first in the order of `families`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from feature_store.errors import ConfigError, DataError
from recsys.serving.index.base import Index
from recsys.serving.index.kinds import build_index
from recsys.serving.index.machine import machine
from recsys.serving.index.measure import exact_places, measured, recall_of
from recsys.serving.index.options import (
    ExactConfig,
    HNSWConfig,
    IndexConfig,
    IVFConfig,
    PQConfig,
    PrefixConfig,
    PromiseConfig,
)
from recsys.serving.index.record import MeasuredIndex, PromiseRecord

KEPT = 200  # queries of a bundle
ALIKE = 1.25  # speeds that differ by no more are equal
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
PQ_EFFORTS = ((10, 4), (10, 16), (30, 16), (30, 64), (100, 64))  # shortlist, probes
HNSW_EFFORTS = (16, 32, 64, 128, 256, 512)
SHORTLISTS = (100, 400, 1600)

Family = Sequence[IndexConfig]
"""Options of one index that differ in the effort of its searches, the least first."""


def families(nested: Sequence[int] = ()) -> list[Family]:
    """All candidates; `nested` are the widths of nested vectors."""
    return [
        [ExactConfig()],
        *([IVFConfig(codes=codes, probes=n) for n in PROBES] for codes in ("flat", "fp16", "sq8")),
        *(
            [PQConfig(refine=codes, shortlist=length, probes=n) for length, n in PQ_EFFORTS]
            for codes in ("flat", "sq8")
        ),
        *([HNSWConfig(codes=codes, effort=n) for n in HNSW_EFFORTS] for codes in ("flat", "sq8")),
        *([PrefixConfig(prefix=width, shortlist=n) for n in SHORTLISTS] for width in nested),
    ]


def keep_promise(
    vectors: Tensor,
    space: str,
    promise: PromiseConfig,
    queries: Tensor,
    nested: Sequence[int] = (),
) -> tuple[Index, PromiseRecord]:
    """The cheapest index over `vectors` [N, D] that keeps the promise with `queries` [Q, D], and
    how it came to be.

    Raises DataError, which names the nearest that can be kept, where this one cannot.
    """
    if vectors.dim() == 1:
        raise ConfigError(
            "export.index: a promise is about item vectors, and this retriever scores all items "
            "without them: set export.index.kind = 'exact'"
        )
    items = len(vectors)
    sample = vectors
    if items > promise.sample:
        drawn = torch.randperm(items, generator=torch.Generator().manual_seed(0))
        sample = vectors[drawn[: promise.sample].sort().values]
    exact = exact_places(sample, queries, min(promise.k, len(sample)))
    candidates: list[MeasuredIndex] = []
    able: list[tuple[Family, MeasuredIndex]] = []
    for family in families(nested):
        tried = list(_tried(sample, space, family, queries, exact, promise.recall))
        candidates += tried
        if tried and tried[-1].recall >= promise.recall:
            able.append((family, tried[-1]))
    missed: list[MeasuredIndex] = []
    for family, on_sample in _cheapest_first(able):
        if _too_large(on_sample, promise, items):
            continue
        kept = _in_full(vectors, space, family, on_sample, queries, promise, missed)
        if kept is not None:
            index, chosen = kept
            few = queries[:KEPT]
            nearest = exact_places(vectors, few, min(promise.k, items))
            record = PromiseRecord(
                promise=promise,
                chosen=chosen,
                candidates=tuple(candidates),
                missed=tuple(missed),
                kept_recall=recall_of(index, few, nearest),
                machine=machine(),
                threads=torch.get_num_threads(),
            )
            return index, record
    raise DataError(_refusal(promise, [*candidates, *missed], items))


def check_promise(index: Index, record: PromiseRecord, queries: Tensor, where: str) -> None:
    """Measure again, with the `queries` [Q, D] of a bundle.

    Raises DataError where the recall falls short of the promise by what such queries could not
    explain: they found as much, to a half per cent, where the index was made.
    """
    exact = exact_places(index.vectors, queries, min(record.promise.k, len(index)))
    recall = recall_of(index, queries, exact)
    if recall < min(record.promise.recall, record.kept_recall) - 0.005:
        raise DataError(
            f"{where}: its index promises {record.promise}, and finds {recall:.3f} on this machine "
            f"({machine()}; made on {record.machine}): export it again, or open it without "
            "measuring the index"
        )


def _tried(
    sample: Tensor,
    space: str,
    family: Family,
    queries: Tensor,
    exact: Tensor,
    recall: float,
) -> Iterator[MeasuredIndex]:
    """With rising effort, up to the first that finds enough; none where it cannot be built."""
    try:
        index = build_index(sample, space, family[0])
    except ConfigError:
        return
    held = index.bytes
    for config in family:
        with_this = index.searched_with(config)
        figures = measured(with_this, config, queries, exact, held)
        yield figures
        if figures.recall >= recall:
            return


def _cheapest_first(
    able: list[tuple[Family, MeasuredIndex]],
) -> Iterator[tuple[Family, MeasuredIndex]]:
    """The fastest first; of those that are nearly as fast, whatever takes the fewest bytes."""
    left = list(able)
    while left:
        fastest = max(figures.queries_per_second for _, figures in left)
        equal = [each for each in left if each[1].queries_per_second * ALIKE >= fastest]
        best = min(equal, key=lambda each: each[1].bytes_per_item)
        left.remove(best)
        yield best


def _in_full(
    vectors: Tensor,
    space: str,
    family: Family,
    on_sample: MeasuredIndex,
    queries: Tensor,
    promise: PromiseConfig,
    missed: list[MeasuredIndex],
) -> tuple[Index, MeasuredIndex] | None:
    """The index of all items with the least effort that keeps the promise; None for none."""
    index = build_index(vectors, space, on_sample.config)
    exact = exact_places(vectors, queries, min(promise.k, len(vectors)))
    held = index.bytes
    for config in family[family.index(on_sample.config) :]:
        with_this = index.searched_with(config)
        figures = measured(with_this, config, queries, exact, held)
        if figures.recall >= promise.recall and not _too_large(figures, promise, len(vectors)):
            return with_this, figures
        missed.append(figures)
    return None


def _too_large(figures: MeasuredIndex, promise: PromiseConfig, items: int) -> bool:
    return promise.memory_mb is not None and figures.megabytes(items) > promise.memory_mb


def _refusal(promise: PromiseConfig, tried: list[MeasuredIndex], items: int) -> str:
    """What can be kept instead: the best recall in that memory, the least memory at that recall."""
    fits = [each for each in tried if not _too_large(each, promise, items)]
    keeps = [each for each in tried if each.recall >= promise.recall]
    nearest = []
    if fits:
        best = max(fits, key=lambda each: (each.recall, each.queries_per_second))
        nearest.append(
            f"recall {best.recall:.3f} fits ({best.config}, {best.megabytes(items):.3g} MB)"
        )
    if keeps:
        least = min(keeps, key=lambda each: each.bytes_per_item)
        nearest.append(
            f"recall {promise.recall:g} takes {least.megabytes(items):.3g} MB ({least.config})"
        )
    return (
        f"export.index: no index of {items} items keeps {promise}: {'; '.join(nearest)}: promise "
        "that, or choose a kind"
    )
