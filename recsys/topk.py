"""Stable top-k: among equal scores the item that comes first wins, on every machine."""

from __future__ import annotations

import torch
from torch import Tensor


def stable_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of `scores` [B, N] as (scores [B, k], columns [B, k]).

    Ties are broken by the lower column. `torch.topk` promises no order among ties, so rows
    where a tie crosses the k-th place are sorted in full; the others cost one pass.
    """
    k = min(k, scores.shape[1])
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    crossing = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if values.shape[1] > k:
        crossing = values[:, k] == values[:, k - 1]
    values, columns = values[:, :k], columns[:, :k]
    # order by column, then stably by score: equal scores stay in the order of their columns
    columns, by_column = columns.sort(dim=1)
    values, by_score = values.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, by_score)
    if crossing.any():
        rows = crossing.nonzero().squeeze(1)
        full, order = scores[rows].sort(dim=1, descending=True, stable=True)
        values[rows], columns[rows] = full[:, :k], order[:, :k]
    return values, columns


def search(
    queries: Tensor, weights: Tensor, items: Tensor, k: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Exact maximum inner product search: (scores [B, k], places [B, k] in `items`).

    Args:
        queries: interest vectors [B, K, D].
        weights: [B, K]; an interest of weight 0 is not there.
        items: [N, D].
        exclude: places [B, L] never to return, padded with -1.

    An item's score is that of its best interest. A place of -1 with score -inf means that
    fewer than k items were left.
    """
    best: Tensor | None = None
    for interest in range(queries.shape[1]):
        scores = queries[:, interest] @ items.T
        absent = weights[:, interest, None] <= 0
        if absent.any():
            scores = scores.masked_fill(absent, float("-inf"))
        best = scores if best is None else torch.maximum(best, scores)
    assert best is not None
    if exclude is not None and exclude.numel():
        rows, columns = (exclude >= 0).nonzero(as_tuple=True)
        best[rows, exclude[rows, columns]] = float("-inf")
    values, places = stable_top_k(best, k)
    return values, places.masked_fill(values == float("-inf"), -1)
