"""Stable top-k: among equal scores the item that comes first wins, on every machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from feature_store.errors import DataError
from recsys.membership import Pairs
from recsys.quota import Merge, deal, quotas_of

# Scores and users at a time: on a processor what is computed has to stay in its cache.
SCORES, USERS = 1 << 21, 128
SCORES_CUDA = 1 << 28


def stable_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of `scores` [B, N] as (scores [B, k], columns [B, k]); k is cut to N.

    Ties are broken by the lower column. Of a long row only the k blocks of neighbouring columns
    with the best maxima are looked at, ties between blocks broken by the lower one. The k best
    columns lie in them: a block ahead of a column's own holds a score that is higher, or as high
    in a lower column, so k such blocks would hold k columns ahead of it.

    Raises DataError where a score is NaN, which has no place in an order.
    """
    k = min(k, scores.shape[1])
    if scores.dtype in (torch.float32, torch.float16, torch.bfloat16):
        places = _places(scores.detach().float(), k)
    else:
        _refuse_nan(scores)
        places = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, places), places


def _places(scores: Tensor, k: int) -> Tensor:
    """The columns of `stable_top_k` for float32 scores."""
    columns = torch.arange(scores.shape[1], device=scores.device)
    if len(columns) <= 16 * k:
        _refuse_nan(scores)
        return _first(_keys(scores, columns), k)
    # many blocks cost time at the first level, wide ones at the second
    width = 8 if len(columns) < 128 * k else 32
    end = len(columns) // width * width  # the few columns behind the last block all stay in
    blocks, tail = scores[:, :end].unflatten(1, (-1, width)), scores[:, end:]
    # torch vectorises maxima of long rows only, and pooling of short ones
    maxima = blocks.amax(2) if width == 32 else max_pool1d(scores, width)
    _refuse_nan(maxima)
    _refuse_nan(tail)
    best = _first(_keys(maxima, columns[: blocks.shape[1]]), k)
    rows = torch.arange(len(scores), device=scores.device).unsqueeze(1)
    keys = _keys(blocks[rows, best], best.unsqueeze(2) * width + columns[:width]).flatten(1)
    return _first(torch.cat([keys, _keys(tail, columns[end:])], dim=1), k)


def _keys(scores: Tensor, columns: Tensor) -> Tensor:
    """Distinct int64 that ascend as scores descend and, among equals, as columns ascend.

    The score fills the upper half: a float's bits, read as an integer, ascend with it where it
    is positive and descend where it is negative. The column fills the lower half.
    """
    bits = (0.0 - scores).view(torch.int32)  # 0 - x is +0 for both zeros
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = bits.long()
    keys <<= 32
    keys |= columns
    return keys


def _first(keys: Tensor, k: int) -> Tensor:
    """The columns [B, k] in the k lowest keys, in their order."""
    if keys.is_cuda:
        return keys.topk(k, dim=1, largest=False).values & 0xFFFFFFFF
    found = keys.numpy()  # whose selection and sort are vectorised, and torch's are not
    if k < found.shape[1]:
        found = np.partition(found, k - 1, axis=1)[:, :k]
    return torch.from_numpy(np.sort(found, axis=1)) & 0xFFFFFFFF


def _refuse_nan(scores: Tensor) -> None:
    if scores.numel() and scores.amax().isnan():  # a maximum over NaN is NaN
        raise DataError(
            "a score is NaN: vectors hold NaN or values too large to multiply; if a training "
            "diverged, lower trainer.optimizer.learning_rate"
        )


def search(
    queries: Tensor,
    weights: Tensor,
    items: Tensor,
    k: int,
    exclude: Pairs | Tensor | None = None,
    merge: Merge = "score",
) -> tuple[Tensor, Tensor]:
    """Exact maximum inner product search: (scores [B, k], places [B, k] in `items`).

    Args:
        queries: interest vectors [B, K, D].
        weights: [B, K]; an interest of weight 0 is not there.
        items: [N, D]; or [N] int64 for unit vectors, the places of their 1.
        exclude: places never to return: pairs, or lists [B, L] padded with -1.
        merge: which items make the list: `score` takes the k best of all, `quota` from each
            interest its best, in proportion to the weights.

    An item's score is that of its best interest. A place of -1 with score -inf means that
    fewer than k items were left. Raises DataError where a score is NaN.
    """
    per_user = max(1, queries.shape[1] * len(items))
    users = max(1, SCORES_CUDA // per_user if items.is_cuda else min(USERS, SCORES // per_user))
    if isinstance(exclude, Tensor):
        exclude = Pairs.of_padded(exclude, padding=-1)
    parts = []
    for first in range(0, max(1, len(queries)), users):
        chunk = slice(first, first + users)
        hidden = None
        if exclude is not None:
            bounds = exclude.users.new_tensor([first, first + users])
            start, end = torch.searchsorted(exclude.users, bounds).tolist()
            hidden = Pairs(exclude.users[start:end] - first, exclude.items[start:end])
        parts.append(_search(queries[chunk], weights[chunk], items, k, hidden, merge))
    values, places = (torch.cat(found) for found in zip(*parts, strict=True))
    return values, places


def _search(
    queries: Tensor,
    weights: Tensor,
    items: Tensor,
    k: int,
    exclude: Pairs | None,
    merge: Merge,
) -> tuple[Tensor, Tensor]:
    if items.dim() == 1:
        scores = queries.index_select(2, items)
    else:
        scores = (queries.flatten(0, 1) @ items.T).unflatten(0, queries.shape[:2])  # [B, K, N]
    absent = weights <= 0
    if absent.any():
        scores[absent] = float("-inf")
    if exclude is not None:
        scores[exclude.users, :, exclude.items] = float("-inf")
    values, places = merged_top_k(scores, weights, k, merge)
    return values, places.masked_fill(values == float("-inf"), -1)


def _in_rounds(scores: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Each round takes the best items that earlier ones left, as many as `places` [B, K] says, the
    same for all users; the last one fills the list."""
    k, left, found = min(k, scores.shape[2]), scores.clone(), []
    sizes = places[0].long().tolist()
    for place, size in enumerate([*sizes[:-1], k]):
        best = stable_top_k(left[:, place], min(size, k))
        found.append(best)
        k -= best[1].shape[1]
        if not k:
            break
        left.scatter_(2, best[1].unsqueeze(1).expand(-1, left.shape[1], -1), float("-inf"))
    values, columns = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return values, columns


def merged_top_k(scores: Tensor, weights: Tensor, k: int, merge: Merge) -> tuple[Tensor, Tensor]:
    """(scores [B, k], columns [B, k]) of the items that interests' `scores` [B, K, N] put on the
    list, in the order of `stable_top_k`, each with its best score; by rounds, with the score of the
    round that found it, round after round. -inf is no item."""
    if merge == "rounds":
        return _in_rounds(scores, weights, k)
    best = scores.squeeze(1) if scores.shape[1] == 1 else scores.amax(1)
    if merge == "quota" and scores.shape[1] > 1:
        values, columns = stable_top_k(scores.flatten(0, 1), k)
        lists = values.unflatten(0, scores.shape[:2]), columns.unflatten(0, scores.shape[:2])
        taken = deal(*lists, quotas_of(weights, k)).flatten(1)
        users, places = taken.nonzero(as_tuple=True)
        kept = torch.zeros_like(best, dtype=torch.bool)
        kept[users, lists[1].flatten(1)[users, places]] = True
        best = best.masked_fill(~kept, float("-inf"))
    return stable_top_k(best, k)
