"""Initial weights as a function of seed, table, row and column alone.

A table then starts from the same weights on any number of processes and however it is split, is
never held whole to be split, and gets the same new rows whenever it grows. The bits are those of
Philox, a generator made to be entered anywhere (Salmon et al., SC 2011): a row takes as many
counters as its weights need, the n-th row those that come after n rows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from recsys.embeddings.hashing import salt_of
from recsys.embeddings.options import EmbeddingsConfig

_CHUNK = 1 << 18  # weights drawn at a time: what is read and written stays in the cache
_OF_COUNTER = 8  # weights of 32 bits each


@torch.no_grad()
def fill(
    weights: Tensor,
    table: str,
    width: int,
    config: EmbeddingsConfig,
    *,
    seed: int = 0,
    first_row: int = 0,
    first_column: int = 0,
) -> None:
    """Draw `weights` [n, d], the part of a table of `width` columns that begins there."""
    counters = -(-width // _OF_COUNTER)  # of a row
    columns = slice(first_column, first_column + weights.shape[1])
    bits = np.random.Philox(key=salt_of("initial", seed, table) % 2**64)
    bits.advance(first_row * counters)
    for chunk in weights.split(max(1, _CHUNK // (counters * _OF_COUNTER))):
        raw = bits.random_raw(len(chunk) * counters * 4).astype("<u8", copy=False)
        rows = torch.from_numpy(raw.view("<i4").reshape(-1, counters * _OF_COUNTER)[:, columns])
        # 24 bits, in the middle of their interval: never the ends of (-1, 1)
        even = ((rows >> 8).float() + 0.5) * 2.0**-23
        if config.init_range is not None:
            chunk.copy_(even.mul_(config.init_range))
        else:
            chunk.copy_(torch.erfinv(even).mul_(math.sqrt(2) * config.init_std))


def standard_deviation(config: EmbeddingsConfig) -> float:
    """Of the initial weights."""
    return config.init_std if config.init_range is None else config.init_range / math.sqrt(3)
