"""Losses. Each returns a value per row, so that any weighting and any sharding can sum them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    targets: Tensor,
    negative_ids: Tensor,
    log_q: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Cross-entropy [P] of the positive against negatives that all rows share.

    `-log( e^{s+} / (e^{s+} + sum_j e^{s_j}) )`, where a negative that is the row's own target
    (an accidental hit) is left out. With `log_q`, the logs of the expected counts of targets
    and negatives in the sample are subtracted from the logits (Bengio & Senecal, 2008).

    Args:
        queries: [P, D], already scaled by the inverse temperature.
        positives: [P, D].
        negatives: [n, D].
        targets: ids [P] of the positives.
        negative_ids: ids [n], distinct and ascending.
        log_q: ([P], [n]) for targets and negatives.
    """
    positive = (queries * positives).sum(-1)
    scores = queries @ negatives.T  # [P, n]
    if log_q is not None:
        positive = positive - log_q[0]
        scores = scores - log_q[1]
    place = torch.searchsorted(negative_ids, targets).clamp(max=len(negative_ids) - 1)
    hit = (negative_ids[place] == targets).nonzero().squeeze(1)
    scores = scores.index_put((hit, place[hit]), scores.new_tensor(float("-inf")))
    return F.softplus(torch.logsumexp(scores, dim=-1) - positive)


def in_batch_softmax(
    queries: Tensor, items: Tensor, labels: Tensor, log_q: Tensor | None = None
) -> Tensor:
    """Cross-entropy [B] over the distinct items of a batch.

    Args:
        queries: [B, D], already scaled by the inverse temperature.
        items: [U, D], one row for each distinct item, so that there are no accidental hits.
        labels: column of each query's own item [B].
        log_q: logs of the probability that each item is in a batch [U], subtracted from its
            scores so that popular items are not punished (Yi et al., RecSys 2019).
    """
    scores = queries @ items.T
    if log_q is not None:
        scores = scores - log_q
    return F.cross_entropy(scores, labels, reduction="none")
