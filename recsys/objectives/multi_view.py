"""Several views of one thing brought together: the text of an item, and who had it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def multi_view(
    views: Mapping[str, Tensor],
    pairs: Iterable[tuple[str, str]],
    ids: Tensor,
    *,
    temperature: float = 0.05,
    smoothing: float = 0.1,
) -> Tensor:
    """Losses [P], summed over pairs of views: each row of one view tells its own row of the other
    from all rows, and the other way round; the mean of both.

    `-sum_j q_ij log softmax_j( cos(u_i, v_j) / temperature )`, where q holds `1 - smoothing` at
    j = i and `smoothing` spread over all j. Rows of the same id are views of the same thing: of a
    row's duplicates all but itself are left out, of the softmax and of q. Source: Bai et al.,
    Cross-view semantic alignment for livestreaming product recognition, ICCV 2023, whose program
    takes duplicates for negatives.

    Args:
        views: vectors [P, D] by the views' names.
        pairs: names of the views that are brought together.
        ids: what each row is a view of [P].
    """
    total = torch.zeros(len(ids), device=ids.device)
    same = ids.unsqueeze(0) == ids.unsqueeze(1)
    others = same & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    unit = {name: F.normalize(vectors.float(), dim=-1) for name, vectors in views.items()}
    with torch.autocast(ids.device.type, enabled=False):
        for left, right in pairs:
            scores = unit[left] @ unit[right].T / temperature
            for logits in (scores, scores.T):
                total = total + _smoothed(logits, others, smoothing) / 2
    return total


def _smoothed(logits: Tensor, left_out: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy [P] of the diagonal, smoothed over what is not left out."""
    logs = logits.masked_fill(left_out, float("-inf")).log_softmax(1)
    spread = logs.masked_fill(left_out, 0).sum(1) / (~left_out).sum(1)
    return -(1 - smoothing) * logs.diagonal() - smoothing * spread
