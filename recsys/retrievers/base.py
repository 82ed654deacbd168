"""The contract of retrievers. B users, K interests, D width, N item rows, T positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from feature_store.examples import HISTORY
from recsys.batch import Batch
from recsys.examples import Examples, Interactions
from recsys.inputs import Input
from recsys.membership import Pairs
from recsys.model import Model, TrainedModel
from recsys.quota import Merge
from recsys.topk import search

if TYPE_CHECKING:
    from recsys.retrievers.objective import Objective, ObjectiveConfig


class RetrieverConfig(BaseModel):
    """A retriever's own options; `name` chooses it.

    `search_space` is what `recsys tune` tries by default, by option: low and high, or choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    search_space: ClassVar[dict[str, dict[str, Any]]] = {}

    name: str


class Queries(NamedTuple):
    """What a user looks for: vectors [B, K, D] and weights [B, K] of interests."""

    vectors: Tensor
    weights: Tensor


class Candidates(NamedTuple):
    """Item rows [B, k], best first, and their scores [B, k]; row 0 fills up short lists."""

    ids: Tensor
    scores: Tensor


class VectorRetriever(Model, ABC):
    """A retriever whose score is the inner product of a user's and an item's vector.

    The one description of a user's side is `encode`: training, evaluation and the exported
    tower all run it on the tensors that `inputs` names. `merge` says how what several interests
    find becomes one list, see `recsys.topk.search`.
    """

    merge: Merge = "score"
    needs_history: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._prepared: tuple[Tensor, Tensor, Tensor] | None = None

    @abstractmethod
    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """The user's vectors from the tensors that `inputs` describes."""

    @abstractmethod
    def embed_items(self, rows: Tensor) -> Tensor:
        """Vectors [n, D] of item rows [n]; or [n] places of the 1 in unit vectors."""

    def embed_users(self, batch: Batch) -> Queries:
        """The vectors of a batch's users."""
        return self.encode(self.inputs_of(batch))

    @torch.no_grad()
    def item_matrix(self, rows: Tensor, chunk: int = 65_536) -> Tensor:
        """What `embed_items` says of many item rows, computed in chunks."""
        return torch.cat([self.embed_items(part) for part in rows.split(chunk)])

    def prepare(self, candidates: Tensor) -> None:
        """Fix what may be retrieved, and compute its vectors once with the current weights."""
        place = torch.full((int(candidates.max()) + 1,), -1, device=candidates.device)
        place[candidates] = torch.arange(len(candidates), device=candidates.device)
        self._prepared = (candidates, self.item_matrix(candidates), place)

    @torch.no_grad()
    def retrieve(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Candidates:
        """The k best candidates of each user, without the item rows that `exclude` pairs it with.

        Raises RuntimeError before `prepare`.
        """
        if self._prepared is None:
            raise RuntimeError("call prepare(candidates) before retrieve()")
        candidates, items, place = self._prepared
        if exclude is not None:
            exclude = exclude.where(exclude.items < len(place))
            exclude = Pairs(exclude.users, place[exclude.items])
            exclude = exclude.where(exclude.items >= 0)
        queries = self.embed_users(batch)
        scores, places = search(queries.vectors, queries.weights, items, k, exclude, self.merge)
        ids = candidates[places.clamp(min=0)].masked_fill(places < 0, 0)
        return Candidates(ids, scores)


class TrainedRetriever(VectorRetriever, TrainedModel):
    """A vector retriever that learns by gradient, from what its `objective` draws."""

    config: ObjectiveConfig
    objective: Objective


class FittedRetriever(VectorRetriever):
    """A vector retriever that learns from all training events at once, without the trainer.

    It is fitted where it is used: the same events and seed make the same retriever.
    """

    def __init__(self, config: RetrieverConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.items = examples.num_items
        self.seed = seed

    @abstractmethod
    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Learn from all training events at once."""


class ScoringRetriever(FittedRetriever):
    """A fitted retriever that scores all items at once from what a user has had.

    The scores are the user's vector [N] and items are the unit vectors, so that the inner
    product picks an item's score; a unit vector is told by the place of its 1, the item's row.
    """

    inputs = (Input(HISTORY, "sequence"),)

    @abstractmethod
    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N] of all item rows from histories [B, N] that hold 1 where an item is."""

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Scores [B, 1, N]; how often or when an item was had does not matter."""
        history = inputs[HISTORY].long()
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


def single_interest(vectors: Tensor) -> Queries:
    """Queries of one interest from vectors [B, D]."""
    return Queries(
        vectors.unsqueeze(1), vectors.new_ones(vectors.shape[0], 1)
    )  # len() is no symbol
