"""A softmax over each list as it was shown: which of its items is chosen."""

from __future__ import annotations

import torch
from torch import Tensor


def list_softmax(logits: Tensor, labels: Tensor, lists: Tensor) -> tuple[Tensor, Tensor]:
    """`-sum_i y_i / sum_j y_j log( e^{s_i} / sum_j e^{s_j} )`, summed over lists, and how many.

    `lists` [n] says of rows with `logits` s [n] and `labels` y [n], 0 or 1, which list they are of,
    in any order; 0 is none. A list counts that has both labels: of any other there is nothing to
    choose. Source: Cao et al., Learning to rank: from pairwise approach to listwise approach, ICML
    2007, with labels for probabilities.
    """
    names, of = lists.unique(return_inverse=True)
    empty = logits.new_zeros(len(names))
    positives, rows = (
        empty.index_add(0, of, labels),
        empty.index_add(0, of, torch.ones_like(labels)),
    )
    judged = (positives > 0) & (positives < rows) & (names != 0)
    top = empty.scatter_reduce(0, of, logits.detach(), "amax", include_self=False)
    sums = empty.index_add(0, of, (logits - top[of]).exp()).log() + top
    shares = labels / positives.clamp(min=1)[of] * judged[of]
    return (shares * (sums[of] - logits)).sum(), judged.sum().to(logits.dtype)
