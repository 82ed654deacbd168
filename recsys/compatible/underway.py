"""A new model over an index on its way, of which some items are re-embedded."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.compatible.mixed import Calibration, mixed_items, mixed_queries
from recsys.compatible.retriever import Compatible
from recsys.retrievers.base import Queries, VectorRetriever


class Underway(VectorRetriever):
    """A compatible retriever over both halves at once: of item rows that are `renewed` [N] the new
    vectors, of the others those that lie in the old index, their scores brought to those of the
    new ones."""

    renewed: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, whole: Compatible, renewed: Tensor, calibration: Calibration) -> None:
        super().__init__()
        self.whole = whole
        self.inputs, self.merge = whole.inputs, whole.merge
        self.needs_history = whole.needs_history
        self.calibration = calibration
        # which half is which names the space, too
        self.register_buffer("renewed", renewed)
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("shift", torch.tensor(calibration.shift))

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Users' vectors [B, K, D_i + d_new + 1], which ask both halves."""
        vectors, weights = self.whole.reembedded.encode(inputs)
        return Queries(mixed_queries(self.whole.bridge.asked(vectors), vectors), weights)

    def embed_items(self, rows: Tensor) -> Tensor:
        """Vectors [n, D_i + d_new + 1] of item rows [n], each in the numbers of its half."""
        stored, new = self.whole.embed_items(rows), self.whole.reembedded.embed_items(rows)
        return mixed_items(stored, new, self.renewed[rows], self.calibration)
