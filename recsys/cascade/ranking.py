"""A ranker of a cascade: logits of many items of each request. B requests, M items."""

from __future__ import annotations

from torch import Tensor, nn

from recsys.cascade.translation import Translation
from recsys.data.batch import Batch
from recsys.inputs import Input
from recsys.lists.funnel import Score
from recsys.lists.scoring import PAIRS, score_by_pairs
from recsys.rankers.base import Ranker


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

    def scoring(self, batch: Batch, pairs: int = PAIRS) -> Score:
        """What gives the logits [B, M] of the cascade's items [B, M]; each request is encoded once,
        and at most about `pairs` items are scored at a time."""

        def begin(inputs: dict[str, Tensor]) -> Score:
            state = self.ranker.encode(inputs)
            return lambda rows: self.ranker.score(state, rows)[:, :, self.task].float()

        def score(items: Tensor) -> Tensor:
            """In the ranker's own rows."""
            inputs = self.ranker.inputs_of(self.translation.batch(batch, self.inputs))
            rows = self.translation.there(self.translation.item, items.clamp(min=0))
            return score_by_pairs(inputs, rows, begin, pairs)

        return score
