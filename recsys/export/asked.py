"""What users ask an index for, as vectors: what promises are measured with."""

from __future__ import annotations

import torch
from torch import Tensor

from feature_store.columns import HISTORY
from recsys.data.examples import Examples
from recsys.export.sample_quality import sample_batches
from recsys.retrievers.base import VectorRetriever


@torch.no_grad()
def asked_vectors(retriever: VectorRetriever, examples: Examples, count: int) -> Tensor:
    """Vectors [n, D], `count` at most, of the interests of users who are judged; those without a
    history are left out where the retriever needs one. None of them may be left."""
    names = [HISTORY, *(column.name for column in retriever.inputs)]
    vectors = [torch.empty(0)]
    asked = 0
    for batch in sample_batches(examples, names, count):
        queries = retriever.embed_users(batch)
        present = queries.weights > 0
        if retriever.needs_history:
            present &= (batch.padded(HISTORY) != 0).any(1, keepdim=True)
        vectors.append(queries.vectors[present].float())
        asked += len(vectors[-1])
        if asked >= count:
            break
    return torch.cat([of_batch for of_batch in vectors if len(of_batch)] or vectors)[:count]
