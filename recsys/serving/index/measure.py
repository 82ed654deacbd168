"""How well an index finds, how fast, and with how much memory. Q queries, D width, N items."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from recsys.lists.search import search
from recsys.serving.index.base import Index, Queries
from recsys.serving.index.options import IndexConfig
from recsys.serving.index.record import MeasuredIndex

BATCH, ALONE, REPETITIONS = 256, 30, 3
_LONG = 0.2  # seconds of a measuring


def exact_places(vectors: Tensor, queries: Tensor, k: int) -> Tensor:
    """The k best of `vectors` [N, D] for each of `queries` [Q, D]: places [Q, k]."""
    return search(queries.unsqueeze(1), torch.ones(len(queries), 1), vectors, k)[1]


def recall_of(index: Index, queries: Tensor, exact: Tensor) -> float:
    """Share of the `exact` places [Q, k] that the index finds."""
    nearest = index.search(_alone(index, queries), exact.shape[1])[1]
    rows = torch.arange(len(exact)).unsqueeze(1) * (len(index) + 1)
    return float(torch.isin(exact + rows, nearest + rows).double().mean())


def measured(
    index: Index, config: IndexConfig, queries: Tensor, exact: Tensor, bytes_held: int | None = None
) -> MeasuredIndex:
    """All figures, for lists as long as the exact ones; `bytes_held` saves counting again."""
    k = exact.shape[1]
    batches = [_alone(index, batch) for batch in queries.split(BATCH)]
    first = _timed(lambda: index.search(batches[0], k))
    wanted = max(1, round(_LONG / max(first, 1e-6)))  # a clock needs some, and exact search few
    batches = [batches[number % len(batches)] for number in range(min(wanted, 10 * len(batches)))]

    def all_batches() -> None:
        for batch in batches:
            index.search(batch, k)

    per_call = min(_timed(all_batches) for _ in range(REPETITIONS))
    asked = sum(len(batch.vectors) for batch in batches)
    alone = [_alone(index, query) for query in queries[:ALONE].split(1)]
    each = [_timed(lambda query=query: index.search(query, k)) for query in alone]  # type: ignore[misc]
    held = index.bytes if bytes_held is None else bytes_held
    return MeasuredIndex(
        config=config,
        items=len(index),
        recall=recall_of(index, queries, exact),
        queries_per_second=round(asked / per_call, 1),
        milliseconds=round(median(each) * 1e3, 4),
        bytes_per_item=round(held / len(index), 2),
    )


def _alone(index: Index, queries: Tensor) -> Queries:
    return Queries(queries.unsqueeze(1), torch.ones(len(queries), 1), index.space)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
