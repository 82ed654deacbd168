"""Stable top-k: among equal scores the item that comes first wins, on every machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from feature_store.errors import DataError


def stable_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of `scores` [B, N] as (scores [B, k], columns [B, k]); k is cut to N.

    Ties are broken by the lower column. Of a long row only the k blocks of neighbouring columns
    with the best maxima are looked at, ties between blocks broken by the lower one. The k best
    columns lie in them: a block ahead of a column's own holds a score that is higher, or as high
    in a lower column, so k such blocks would hold k columns ahead of it.

    Raises DataError where a score is NaN, which has no place in an order.
    """
    k = min(k, scores.shape[1])
    if not k:
        return scores[:, :0], scores.new_zeros(len(scores), 0, dtype=torch.int64)
    if scores.dtype in (torch.float32, torch.float16, torch.bfloat16):
        columns = _top_columns(scores.detach().float(), k)
    else:
        _refuse_nan(scores)
        columns = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return scores.gather(1, columns), columns


def _top_columns(scores: Tensor, k: int) -> Tensor:
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
    array = keys.numpy()  # whose selection and sort are vectorised, and torch's are not
    if k < array.shape[1]:
        array = np.partition(array, k - 1, axis=1)[:, :k]
    return torch.from_numpy(np.sort(array, axis=1)) & 0xFFFFFFFF


def _refuse_nan(scores: Tensor) -> None:
    if scores.numel() and scores.amax().isnan():  # a maximum over NaN is NaN
        raise DataError(
            "a score is NaN: vectors hold NaN or values too large to multiply; if a training "
            "diverged, lower trainer.optimizer.learning_rate"
        )
