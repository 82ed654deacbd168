"""Retrievers that learn from all training events at once. B users, N item rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from feature_store.columns import HISTORY
from recsys.data.examples import Examples, Interactions
from recsys.embeddings.options import EmbeddingsConfig
from recsys.inputs import History, Input
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, VectorRetriever, single_interest


class FittedRetriever(VectorRetriever):
    """A vector retriever that learns from all training events at once, without the trainer.

    It is fitted where it is used: the same events and seed make the same retriever. It reads whole
    histories unless it says otherwise. `Config` are its options.
    """

    Config: ClassVar[type[ModelConfig]]

    def __init__(self, config: ModelConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__()
        self.inputs: tuple[Input, ...] = (History(examples.schema.item),)
        self.config = config
        self.items = examples.num_items
        self.seed = seed

    @classmethod
    def make(
        cls, config: ModelConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> Self:
        """A retriever that is not fitted yet, from a `Config`; it has no embedding tables."""
        return cls(config, examples, seed)

    @abstractmethod
    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Learn from all training events at once."""


class ScoringRetriever(FittedRetriever):
    """A fitted retriever that scores all items at once from what a user has had.

    The scores are the user's vector [N] and items are the unit vectors, so that the inner
    product picks an item's score; a unit vector is told by the column of its 1, the item's row.
    """

    @abstractmethod
    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N] of all item rows from histories [B, N] that hold 1 where an item is."""

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Scores [B, 1, N]; how often or when an item was had does not matter."""
        history = inputs[HISTORY]
        none = torch.zeros(history.shape[0], self.items, device=history.device)
        histories = none.scatter(1, history, 1.0)
        histories[:, 0] = 0  # padding
        return single_interest(self.score(histories))

    def embed_items(self, rows: Tensor) -> Tensor:
        """The rows themselves [n]."""
        return rows


def binary_matrix(interactions: Interactions, items: int) -> sp.csr_array:
    """[U, N] float32, U user rows: 1 where a user has had an item, however often."""
    users, rows = interactions.users.numpy(), interactions.items.numpy()
    shape = (int(users.max(initial=-1)) + 1, items)
    matrix = sp.csr_array((np.ones(len(users), np.float32), (users, rows)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
