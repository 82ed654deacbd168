"""Vectors of items: each distinct sentence is encoded once, sentences of like length together."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.text.batches import Sentences, by_length
from recsys.text.encoder import TextEncoder

TOKENS_PER_BATCH = 1 << 14


@torch.no_grad()
def item_vectors(
    encoder: TextEncoder,
    sentences: Sentences,
    rows: Tensor,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> Tensor:
    """The vectors [n, D] of item rows [n], without gradients and without dropout.

    No batch has more than `tokens_per_batch` tokens, padding included.
    """
    training = encoder.training
    encoder.eval()
    try:
        distinct, of_row = sentences.distinct(rows)
        lengths = sentences.lengths(distinct).cpu().numpy()
        vectors = torch.empty(len(distinct), encoder.width, device=rows.device)
        for places in by_length(lengths, tokens_per_batch):
            at = torch.from_numpy(places).to(rows.device)
            vectors[at] = encoder.vectors(sentences.items(distinct[at])).to(vectors.dtype)
        return vectors[of_row]
    finally:
        encoder.train(training)
