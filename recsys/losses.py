"""Losses. Each returns a value per row, so that any weighting and any sharding can sum them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_CHUNK_SCORES = 1 << 20  # scores held at a time: 4 MB of float32


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
    bias = None
    if log_q is not None:
        positive = positive - log_q[0]
        bias = log_q[1]
    hit, place = _accidental_hits(targets, negative_ids)
    return _SharedNegatives.apply(
        queries.float(), positive.float(), negatives.float(), bias, hit, place
    )


def _accidental_hits(targets: Tensor, negative_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows whose target is among the negatives, ascending, and its place there."""
    place = torch.searchsorted(negative_ids, targets).clamp(max=len(negative_ids) - 1)
    hit = (negative_ids[place] == targets).nonzero().squeeze(1)
    return hit, place[hit]


class _SharedNegatives(torch.autograd.Function):
    """`logsumexp(s+, S) - s+` per row, where S = queries @ negatives.T is never held whole.

    Rows are taken in chunks whose scores stay in the processor's cache, and the backward pass
    computes them again: one more matrix product instead of several passes over [P, n] in memory.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        queries: Tensor,
        positive: Tensor,
        negatives: Tensor,
        bias: Tensor | None,
        hit: Tensor,
        place: Tensor,
    ) -> Tensor:
        """Losses [P]; keeps the log of each row's normaliser, and no scores."""
        total = torch.empty_like(positive)
        with torch.autocast(queries.device.type, enabled=False):
            for rows, scores in _chunks(queries, negatives, bias, hit, place):
                total[rows] = torch.logsumexp(scores, dim=1)
        total = torch.logaddexp(total, positive)
        ctx.save_for_backward(queries, positive, negatives, bias, hit, place, total)
        return total - positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients from the scores computed again: softmax shares times `grad` [P]."""
        queries, positive, negatives, bias, hit, place, total = ctx.saved_tensors
        of_queries = torch.empty_like(queries)
        of_negatives = torch.zeros_like(negatives)
        for rows, scores in _chunks(queries, negatives, bias, hit, place):
            share = scores.sub_(total[rows, None]).exp_().mul_(grad[rows, None])
            torch.mm(share, negatives, out=of_queries[rows])
            of_negatives.addmm_(share.T, queries[rows])
        of_positive = ((positive - total).exp() - 1) * grad
        return of_queries, of_positive, of_negatives, None, None, None


def _chunks(
    queries: Tensor, negatives: Tensor, bias: Tensor | None, hit: Tensor, place: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows with their scores against the negatives, accidental hits at -inf."""
    size = max(1, _CHUNK_SCORES // len(negatives))
    starts = range(0, len(queries), size)
    bounds = torch.searchsorted(hit, torch.tensor([*starts, len(queries)], device=hit.device))
    transposed = negatives.T.contiguous()
    for start, (first, last) in zip(starts, itertools.pairwise(bounds.tolist()), strict=True):
        scores = queries[start : start + size] @ transposed
        if bias is not None:
            scores -= bias
        scores[hit[first:last] - start, place[first:last]] = float("-inf")
        yield slice(start, start + size), scores


def bpr(
    queries: Tensor, positives: Tensor, negatives: Tensor, *, targets: Tensor, negative_ids: Tensor
) -> Tensor:
    """`mean_j -log sigmoid(s+ - s_j)` [P] (Rendle et al., UAI 2009); arguments as in
    `sampled_softmax`, accidental hits left out."""

    def losses(positive: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
        terms = F.softplus(scores - positive.unsqueeze(1)).masked_fill(~kept, 0)
        return terms.sum(1) / kept.sum(1).clamp(min=1)

    return _in_chunks(losses, queries, positives, negatives, targets, negative_ids)


def calibrated_bce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    targets: Tensor,
    negative_ids: Tensor,
    power: float = 1.0,
) -> Tensor:
    """`-(power log sigmoid(s+) + sum_j log(1 - sigmoid(s_j))) / (n + 1)` [P], the gBCE of Petrov &
    Macdonald (gSASRec, RecSys 2023); with a power of 1, binary cross-entropy. Arguments as in
    `sampled_softmax`, accidental hits left out."""

    def losses(positive: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
        negative = F.softplus(scores).masked_fill(~kept, 0).sum(1)
        return (power * F.softplus(-positive) + negative) / (kept.sum(1) + 1)

    return _in_chunks(losses, queries, positives, negatives, targets, negative_ids)


def _in_chunks(
    losses: Callable[[Tensor, Tensor, Tensor], Tensor],
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
) -> Tensor:
    """`losses` of positive scores [P] and scores [P, n] against the negatives kept [P, n], a few
    rows at a time; the backward pass computes the scores again."""

    def part(queries: Tensor, positives: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        kept = targets.unsqueeze(1) != negative_ids
        return losses((queries * positives).sum(1), queries @ negatives.T, kept)

    size = max(1, _CHUNK_SCORES // len(negatives))
    rows = zip(queries.split(size), positives.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(part, *chunk, negatives, use_reentrant=False) for chunk in rows])
