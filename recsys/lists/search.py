"""Exact search of the items with the largest inner products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.lists.merging import BY_SCORE, Merge
from recsys.lists.pairs import Pairs

# Scores and users at a time: on a processor what is computed has to stay in its cache.
SCORES, USERS = 1 << 21, 128
SCORES_CUDA = 1 << 28
FEW = 4  # one allowed item in so many: cheaper copied and searched alone than masked among all


def search(
    queries: Tensor,
    weights: Tensor,
    items: Tensor,
    k: int,
    exclude: Pairs | Tensor | None = None,
    merge: Merge = BY_SCORE,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Exact maximum inner product search: (scores [B, k], indices [B, k] of `items`).

    Args:
        queries: interest vectors [B, K, D].
        weights: [B, K]; an interest of weight 0 is not there.
        items: [N, D]; or [N] int64 for unit vectors, the columns of their 1.
        exclude: indices never to return: pairs, or lists [B, L] padded with -1.
        merge: which items make the list: `score` takes the k best of all, `quota` from each
            interest its best, in proportion to the weights.
        allowed: which items [N] may be returned to anybody, bool; by default all.

    An item's score is that of its best interest. An index of -1 with score -inf means that
    fewer than k items were left. Raises DataError where a score is NaN.
    """
    if allowed is not None and FEW * int(allowed.sum()) <= len(items):
        places = allowed.nonzero().squeeze(1)
        return search_among(places, queries, weights, items, k, exclude, merge)
    forbidden = None if allowed is None else ~allowed
    per_user = max(1, queries.shape[1] * len(items))
    users = max(1, SCORES_CUDA // per_user if items.is_cuda else min(USERS, SCORES // per_user))
    if isinstance(exclude, Tensor):
        exclude = Pairs.of_padded(exclude, padding=-1)
    chunks = []
    for first in range(0, max(1, len(queries)), users):
        chunk = slice(first, first + users)
        hidden = None
        if exclude is not None:
            bounds = exclude.users.new_tensor([first, first + users])
            start, end = torch.searchsorted(exclude.users, bounds).tolist()
            hidden = Pairs(exclude.users[start:end] - first, exclude.items[start:end])
        chunks.append(_search(queries[chunk], weights[chunk], items, k, hidden, merge, forbidden))
    values, indices = (torch.cat(tensors) for tensors in zip(*chunks, strict=True))
    return values, indices


def search_among(
    places: Tensor,
    queries: Tensor,
    weights: Tensor,
    items: Tensor,
    k: int,
    exclude: Pairs | Tensor | None = None,
    merge: Merge = BY_SCORE,
) -> tuple[Tensor, Tensor]:
    """`search` for the items at `places` [M] alone, ascending: it multiplies no others."""
    if exclude is not None:
        pairs = Pairs.of_padded(exclude, padding=-1) if isinstance(exclude, Tensor) else exclude
        column = pairs.items.new_full((len(items),), -1)
        column[places] = torch.arange(len(places), device=places.device)
        columns = column[pairs.items]
        exclude = Pairs(pairs.users, columns).where(columns >= 0)
    values, columns = search(queries, weights, items[places], k, exclude, merge)
    missing = (0, min(k, len(items)) - values.shape[1])
    if len(places):
        columns = places[columns.clamp(min=0)].masked_fill(columns < 0, -1)
    return pad(values, missing, value=float("-inf")), pad(columns, missing, value=-1)


def _search(
    queries: Tensor,
    weights: Tensor,
    items: Tensor,
    k: int,
    exclude: Pairs | None,
    merge: Merge,
    forbidden: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if items.dim() == 1:
        scores = queries.index_select(2, items)
    else:
        scores = (queries.flatten(0, 1) @ items.T).unflatten(0, queries.shape[:2])  # [B, K, N]
    absent = weights <= 0
    if absent.any():
        scores[absent] = float("-inf")
    if forbidden is not None:
        scores.masked_fill_(forbidden, float("-inf"))
    if exclude is not None:
        scores[exclude.users, :, exclude.items] = float("-inf")
    values, indices = merge.top_k(scores, weights, k)
    return values, indices.masked_fill(values == float("-inf"), -1)
