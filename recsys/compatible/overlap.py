"""How much of what people see stays when lists are replaced. B requests, k places."""

from __future__ import annotations

import numpy as np


def rank_biased_overlap(first: np.ndarray, second: np.ndarray, p: float = 0.9) -> np.ndarray:
    """RBO [B] of lists [B, k] of places, -1 for none: 1 for equal lists, 0 for disjoint ones.

    Someone looks at the first place, and goes on to each next one with probability p; the overlap
    is what share of the items seen so far is common, `X_d / d` at depth d. Beyond the end of the
    lists it is taken to stay as it was there:
    `X_k / k p^k + (1 - p) / p sum_{d=1..k} X_d / d p^d`, equation 32 of Webber, Moffat & Zobel, "A
    similarity measure for indefinite rankings", TOIS 2010. With p = 0.9 the first ten places have
    86 % of the weight.
    """
    depths = np.arange(1, first.shape[1] + 1)
    common = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)
    # the depth at which a common pair of places is complete
    complete = np.maximum(depths[:, None], depths[None, :])
    overlap = np.stack(
        [(common & (complete <= depth)).sum((1, 2)) / depth for depth in depths], axis=1
    )
    weighted = (1 - p) / p * (overlap * p**depths).sum(1)
    return weighted + overlap[:, -1] * p ** len(depths)
