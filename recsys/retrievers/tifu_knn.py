"""TIFU-kNN: how often and how lately a user had items, and what users like that had."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from feature_store.columns import HISTORY, HISTORY_TIME
from feature_store.errors import DataError
from recsys.data.examples import Examples, Interactions
from recsys.inputs import History, Id, Times
from recsys.layers.sparse_linear import SparseLinear
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.fitted import ScoringRetriever

_EVENTS = 1 << 22  # of users that are weighed at once, padding included
_FINE = 1 << 20  # parts of 1 in which distances are told apart: rounding errors are finer
_DAY = 86_400


class TIFUKNNConfig(ModelConfig):
    """Hu, He, Gao & Zhang, "Modeling personalized item frequency information for next-basket
    recommendation", SIGIR 2020."""

    name: Literal["tifu_knn"] = "tifu_knn"
    basket: Literal["moment", "day"] = Field(
        "moment",
        description="A basket is what a user took at the same moment, or on the same day (UTC).",
    )
    group_size: int = Field(7, ge=1, description="m: baskets of a group; the oldest may have less.")
    basket_decay: float = Field(
        0.9, gt=0, le=1, description="r_b: what a basket counts for beside the next of its group."
    )
    group_decay: float = Field(
        0.7, gt=0, le=1, description="r_g: what a group counts for beside the next one."
    )
    neighbours: int = Field(300, ge=1, description="k: nearest other users.")
    mixing_weight: float = Field(
        0.7, ge=0, le=1, description="alpha: what a user counts for beside the neighbours."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "group_size": {"low": 1, "high": 20, "log": True},
        "basket_decay": {"low": 0.5, "high": 1.0},
        "group_decay": {"low": 0.2, "high": 1.0},
        "neighbours": {"low": 50, "high": 1000, "log": True},
        "mixing_weight": {"low": 0.0, "high": 1.0},
    }


class TIFUKNN(ScoringRetriever):
    """An item's score is alpha x + (1 - alpha) mean of x over the k nearest other users by training
    events (Euclidean distance), x [N] being how often and how lately a user had items:

    x_i = 1/G sum_g r_g^g 1/m_g sum_w r_b^w [i in basket w of group g], where groups and the baskets
    in each are counted from the newest, 0 on, and m_g baskets make one of G groups.

    It knows users by their ids, so that nobody is a neighbour of their own. Requests without times
    are one basket.
    """

    Config = TIFUKNNConfig
    config: TIFUKNNConfig
    known: Tensor
    lengths: Tensor

    def __init__(self, config: TIFUKNNConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__(config, examples, seed)
        if examples.schema.clock != "time":
            raise DataError("tifu_knn needs times, which make baskets; this log has none")
        history = History(examples.schema.item)
        self.user = examples.schema.user
        self.inputs = (Id(self.user), history, Times(history))

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Weigh what every user had."""
        users = len(examples.vocabulary(self.user))
        had = self._of_users(interactions, users)
        known = had.count_nonzero(1) > 0
        self.neighbours = min(self.config.neighbours, users)
        self.to_users, self.to_items = SparseLinear(had.T), SparseLinear(had)
        self.register_buffer("known", torch.from_numpy(known))
        lengths = had.multiply(had).sum(1).astype(np.float32)
        self.register_buffer("lengths", torch.from_numpy(lengths))

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Scores [B, 1, N]."""
        items, weights = self.weigh(inputs[HISTORY], inputs[HISTORY_TIME])
        none = torch.zeros(items.shape[0], self.items, device=items.device)
        return single_interest(self.score(none.scatter_add(1, items, weights), inputs[self.user]))

    def score(self, histories: Tensor, users: Tensor | None = None) -> Tensor:
        """Scores [B, N] of weighed histories [B, N], which are of user rows [B] or of nobody known.

        Of users at the same distance the lower row is nearer.
        """
        others = self.known.expand(histories.shape[0], -1)
        if users is not None:
            others = others.scatter(1, users.unsqueeze(1), False)
        distances = self.lengths - 2 * self.to_users(histories)  # squared, without the own length
        rows = torch.arange(len(self.lengths), device=histories.device)
        order = (distances * _FINE).round().long() * len(self.lengths) + rows
        order = order.masked_fill(~others, torch.iinfo(torch.int64).max)
        nearest = order.topk(self.neighbours, largest=False).indices
        there = others.gather(1, nearest).to(histories.dtype)
        shares = there / there.sum(1, keepdim=True).clamp(min=1)
        mean = self.to_items(torch.zeros_like(distances).scatter(1, nearest, shares))
        alpha = self.config.mixing_weight
        return alpha * histories + (1 - alpha) * mean

    def weigh(self, history: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Item rows [B, T] of histories [B, T] with their times, and what each counts for."""
        config = self.config
        if config.basket == "day":
            times = times.div(_DAY, rounding_mode="floor")
        there = history != 0
        later = torch.arange(history.shape[1], device=history.device) > 0
        another = (times != times.roll(1, 1)) | ~later
        basket = (another & there).cumsum(1)  # 1 for the oldest
        baskets = basket.amax(1, keepdim=True)
        # an item that a basket holds twice counts once: sorted, it stands beside itself
        keys = (basket * self.items + history).sort(dim=1).values
        basket, items = keys // self.items, keys % self.items
        again = (keys == keys.roll(1, 1)) & later
        back = baskets - basket  # 0 for the newest
        group, place = back // config.group_size, back % config.group_size
        groups = (baskets + config.group_size - 1) // config.group_size  # 0 of no history
        size = (baskets - group * config.group_size).clamp(max=config.group_size)
        within, between = config.basket_decay**place / size, config.group_decay**group / groups
        return items, (within * between).masked_fill(again | (items == 0), 0.0)

    def _of_users(self, interactions: Interactions, users: int) -> sp.csr_array:
        """What all users had, weighed [U, N] float32; nothing where they had nothing."""
        order = torch.argsort(interactions.users, stable=True)
        rows, counts = interactions.users[order].unique_consecutive(return_counts=True)
        had = (interactions.items[order], interactions.times[order])
        of_user = [part.split(counts.tolist()) for part in had]
        values, coordinates = [np.zeros(0, np.float32)], [np.zeros((2, 0), np.int64)]
        for some in counts.argsort().split(max(1, _EVENTS // int(counts.max()))):
            lists = [[part[user] for user in some.tolist()] for part in of_user]
            items, weights = self.weigh(*(pad_sequence(part, batch_first=True) for part in lists))
            kept = weights > 0
            users_of = rows[some].unsqueeze(1).expand_as(items)
            values.append(weights[kept].numpy())
            coordinates.append(torch.stack([users_of[kept], items[kept]]).numpy())
        entries = (np.concatenate(values), tuple(np.concatenate(coordinates, axis=1)))
        return sp.csr_array(entries, shape=(users, self.items))  # entries of one place add up
