"""Losses. Each returns a value per row, so that any weighting and any sharding can sum them.

P rows, n negatives, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recsys.lists.pairs import Pairs

_CHUNK_SCORES = 1 << 20  # scores held at a time: 4 MB of float32


class Sets(NamedTuple):
    """Several sets of negatives, one behind the other, as are the rows that share each: how many
    rows and how many negatives every set has."""

    rows: tuple[int, ...]
    negatives: tuple[int, ...]

    def pieces(self) -> Iterator[tuple[slice, slice]]:
        """Rows and the negatives they share, with `_CHUNK_SCORES` scores at most, or one row."""
        row = negative = 0
        for rows, negatives in zip(self.rows, self.negatives, strict=True):
            size = max(1, _CHUNK_SCORES // max(1, negatives))
            for start in range(row, row + rows, size):
                end = min(start + size, row + rows)
                yield slice(start, end), slice(negative, negative + negatives)
            row, negative = row + rows, negative + negatives

    def keys(self, counts: tuple[int, ...], ids: Tensor) -> Tensor:
        """Ids that differ where their sets do, in the order of the sets; `counts` of each set."""
        numbers = torch.arange(len(counts), device=ids.device)
        repeats = torch.tensor(counts, device=ids.device)
        return (numbers.repeat_interleave(repeats, output_size=len(ids)) << 40) + ids


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    targets: Tensor,
    negative_ids: Tensor,
    sets: Sets | None = None,
    own: Pairs | None = None,
    log_q: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Cross-entropy [P] of the positive against negatives that all rows, or all of a set, share.

    `-log( e^{s+} / (e^{s+} + sum_j e^{s_j}) )`, where a negative that is the row's own target
    (an accidental hit) is left out. With `log_q`, the logs of the expected counts of targets
    and negatives in the sample are subtracted from the logits (Bengio & Senecal, 2008).

    Args:
        queries: [P, D], already scaled by the inverse temperature.
        positives: [P, D].
        negatives: [n, D].
        targets: ids [P] of the positives.
        negative_ids: ids [n], distinct and ascending within a set.
        sets: which rows share which negatives; by default all share all.
        own: pairs of a row and an id that is no negative of it either.
        log_q: ([P], [n]) for targets and negatives.
    """
    positive = (queries * positives).sum(-1)
    bias = None
    if log_q is not None:
        positive = positive - log_q[0]
        bias = log_q[1]
    sets = sets or Sets((len(targets),), (len(negative_ids),))
    hit, position = _accidental_hits(targets, negative_ids, sets, own)
    return _SharedNegatives.apply(
        queries.float(), positive.float(), negatives.float(), bias, hit, position, sets
    )


def _accidental_hits(
    targets: Tensor, negative_ids: Tensor, sets: Sets, own: Pairs | None
) -> tuple[Tensor, Tensor]:
    """Rows that have their target, or what else is their own, among their negatives, ascending;
    and its position there. A row comes as often as it has such negatives."""
    rows = torch.arange(len(targets), device=targets.device)
    wanted, there = sets.keys(sets.rows, targets), sets.keys(sets.negatives, negative_ids)
    if own is not None:
        wanted = torch.cat([wanted, (wanted - targets)[own.users] + own.items])
        rows = torch.cat([rows, own.users])
    position = torch.searchsorted(there, wanted).clamp(max=len(there) - 1)
    hit = (there[position] == wanted).nonzero().squeeze(1)
    if own is not None:
        hit = hit[rows[hit].argsort(stable=True)]
    return rows[hit], position[hit]


class _Piece(NamedTuple):
    """Rows, the negatives they share, and the accidental hits among them, counted from the first
    row and the first negative of the piece."""

    rows: slice
    columns: slice
    hit: Tensor
    position: Tensor


def _pieces(hit: Tensor, position: Tensor, sets: Sets) -> Iterator[_Piece]:
    pieces = list(sets.pieces())
    starts = [rows.start for rows, _ in pieces]
    bounds = torch.searchsorted(hit, torch.tensor([*starts, sum(sets.rows)], device=hit.device))
    for (rows, columns), (first, last) in zip(
        pieces, itertools.pairwise(bounds.tolist()), strict=True
    ):
        here = slice(first, last)
        yield _Piece(rows, columns, hit[here] - rows.start, position[here] - columns.start)


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
        position: Tensor,
        sets: Sets,
    ) -> Tensor:
        """Losses [P]; keeps the log of each row's normaliser, and no scores."""
        total = torch.empty_like(positive)
        with torch.autocast(queries.device.type, enabled=False):
            for rows, _, scores in _chunks(queries, negatives, bias, hit, position, sets):
                total[rows] = torch.logsumexp(scores, dim=1)
        total = torch.logaddexp(total, positive)
        ctx.sets = sets
        ctx.save_for_backward(queries, positive, negatives, bias, hit, position, total)
        return total - positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients from the scores computed again: softmax shares times `grad` [P]."""
        queries, positive, negatives, bias, hit, position, total = ctx.saved_tensors
        of_queries = torch.empty_like(queries)
        of_negatives = torch.zeros_like(negatives)
        for rows, columns, scores in _chunks(queries, negatives, bias, hit, position, ctx.sets):
            share = scores.sub_(total[rows, None]).exp_().mul_(grad[rows, None])
            torch.mm(share, negatives[columns], out=of_queries[rows])
            of_negatives[columns].addmm_(share.T, queries[rows])
        of_positive = ((positive - total).exp() - 1) * grad
        return of_queries, of_positive, of_negatives, None, None, None, None


def _chunks(
    queries: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    hit: Tensor,
    position: Tensor,
    sets: Sets,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Slices of rows and of negatives with their scores, accidental hits at -inf."""
    transposed = negatives.T.contiguous()
    for rows, columns, own, place in _pieces(hit, position, sets):
        scores = queries[rows] @ transposed[:, columns]
        if bias is not None:
            scores -= bias[columns]
        scores[own, place] = float("-inf")
        yield rows, columns, scores


def bpr(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    targets: Tensor,
    negative_ids: Tensor,
    sets: Sets | None = None,
    own: Pairs | None = None,
) -> Tensor:
    """`mean_j -log sigmoid(s+ - s_j)` [P] (Rendle et al., UAI 2009); arguments as in
    `sampled_softmax`, accidental hits left out."""

    def losses(positive: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
        terms = F.softplus(scores - positive.unsqueeze(1)).masked_fill(~kept, 0)
        return terms.sum(1) / kept.sum(1).clamp(min=1)

    return _in_chunks(losses, queries, positives, negatives, targets, negative_ids, sets, own)


def calibrated_bce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    targets: Tensor,
    negative_ids: Tensor,
    sets: Sets | None = None,
    own: Pairs | None = None,
    calibration: float = 0.0,
    items: int = 2,
) -> Tensor:
    """`-(b log sigmoid(s+) + sum_j log(1 - sigmoid(s_j))) / (n + 1)` [P], the gBCE of Petrov &
    Macdonald (gSASRec, RecSys 2023), `b = 1 - calibration (1 - n / (items - 1))`; without
    calibration, binary cross-entropy. Arguments as in `sampled_softmax`, accidental hits left out
    of the sum; n counts them.

    Args:
        calibration: 0 to 1.
        items: how many items there are to draw from.
    """

    def losses(positive: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
        power = 1 - calibration * (1 - scores.shape[1] / max(1, items - 1))
        negative = F.softplus(scores).masked_fill(~kept, 0).sum(1)
        return (power * F.softplus(-positive) + negative) / (kept.sum(1) + 1)

    return _in_chunks(losses, queries, positives, negatives, targets, negative_ids, sets, own)


def _in_chunks(
    losses: Callable[[Tensor, Tensor, Tensor], Tensor],
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    sets: Sets | None,
    own: Pairs | None,
) -> Tensor:
    """`losses` of positive scores [P] and scores [P, n] against the negatives kept [P, n], a few
    rows at a time; the backward pass computes the scores again."""

    def chunk(
        queries: Tensor, positives: Tensor, negatives: Tensor, hit: Tensor, position: Tensor
    ) -> Tensor:
        scores = queries @ negatives.T
        kept = torch.ones_like(scores, dtype=torch.bool)
        kept[hit, position] = False
        return losses((queries * positives).sum(1), scores, kept)

    sets = sets or Sets((len(targets),), (len(negative_ids),))
    hits = _accidental_hits(targets, negative_ids, sets, own)
    chunks = [
        checkpoint(
            chunk,
            queries[piece.rows],
            positives[piece.rows],
            negatives[piece.columns],
            piece.hit,
            piece.position,
            use_reentrant=False,
        )
        for piece in _pieces(*hits, sets)
    ]
    return torch.cat(chunks) if chunks else queries.sum(1)
