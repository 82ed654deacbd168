"""A generator of a cascade: a retriever that finds a budget of items. B requests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from feature_store.columns import HISTORY
from feature_store.errors import DataError
from recsys.cascade.translation import Translation
from recsys.data.batch import Batch
from recsys.inputs import History, Input
from recsys.lists.funnel import Find
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Retriever


class Generator(nn.Module):
    """A retriever with a budget, asked in its own rows and answering in the cascade's.

    One that needs a history finds nothing for requests without an item that it knows.
    """

    def __init__(self, retriever: Retriever, budget: int, translation: Translation) -> None:
        super().__init__()
        self.retriever = retriever
        self.budget = budget
        self.translation = translation

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it reads of a request: what was seen, and what the retriever reads."""
        return (History(self.translation.item), *self.retriever.inputs)

    @property
    def needs_history(self) -> bool:
        """Whether it leaves users without one unanswered."""
        return self.retriever.needs_history

    def prepare(self, candidates: Tensor) -> None:
        """Fix the item rows that may be found; those that the retriever does not know cannot be.

        Raises DataError where it knows none.
        """
        rows = self.translation.there(self.translation.item, candidates)
        known = rows[rows != 0].sort().values
        if not len(known):
            raise DataError("a generator of this cascade knows none of the items that are ranked")
        self.retriever.prepare(known)

    def finding(self, batch: Batch, exclude: Pairs | None) -> Find:
        """What finds items [B, n] of the cascade, -1 for none, and their scores [B, n]."""

        def find() -> tuple[Tensor, Tensor]:
            """In the retriever's own rows."""
            asked = self.translation.batch(batch, self.inputs)
            hidden = None
            if exclude is not None:
                rows = self.translation.there(self.translation.item, exclude.items)
                hidden = Pairs(exclude.users, rows).where(rows != 0)
            lists = self.retriever.retrieve(asked, self.budget, hidden)
            items = self.translation.here(lists.ids)
            none = items == 0
            if self.needs_history:
                none |= (asked.jagged(HISTORY).lengths() == 0).unsqueeze(1)
            scores = lists.scores.float().masked_fill(none, float("-inf"))
            return torch.where(none, -1, items), scores

        return find
