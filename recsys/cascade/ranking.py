"""A ranker of a cascade: logits of many items of each request. B requests, M items."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.cascade.translation import Translation
from recsys.data.batch import Batch
from recsys.inputs import Input
from recsys.lists.funnel import Score
from recsys.rankers.base import Ranker

_PAIRS = 1 << 13  # of a request and an item, scored at a time: each may look at a whole history


class Ranking(nn.Module):
    """A ranker that is asked in its own rows for one of its tasks."""

    def __init__(self, ranker: Ranker, task: str, translation: Translation) -> None:
        super().__init__()
        self.ranker = ranker
        self.task = ranker.tasks.index(task)
        self.translation = translation

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it reads of a request."""
        return self.ranker.inputs

    def scoring(self, batch: Batch, pairs: int = _PAIRS) -> Score:
        """What gives the logits [B, M] of the cascade's items [B, M]; each request is encoded once,
        and at most about `pairs` items are scored at a time."""

        def score(items: Tensor) -> Tensor:
            inputs = self.ranker.inputs_of(self.translation.batch(batch, self.inputs))
            rows = self.translation.there(self.translation.item, items.clamp(min=0))
            requests = max(1, pairs // max(1, rows.shape[1]))
            chunks = []
            for first in range(0, len(rows), requests):
                some = slice(first, first + requests)
                state = self.ranker.encode({name: of[some] for name, of in inputs.items()})
                logits = [
                    self.ranker.score(state, columns)[:, :, self.task]
                    for columns in rows[some].split(pairs, dim=1)
                ]
                chunks.append(torch.cat(logits, dim=1).float())
            return torch.cat(chunks) if chunks else rows.new_zeros(rows.shape, dtype=torch.float32)

        return score
