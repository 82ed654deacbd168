"""HCN: a coarse ranker, whose work for a request does not grow with the number of its items."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.deep import deep_network
from recsys.layers.interests import HCN as Extractor
from recsys.layers.interests import newest_first
from recsys.rankers.base import State
from recsys.rankers.features import (
    REQUEST,
    FeatureRanker,
    HistoryRankerOptions,
    item_rows_of,
    vectors_of,
)

_CHUNK = 65_536  # items whose vectors are made at a time
_INTERESTS = "interests"


class HCNConfig(HistoryRankerOptions):
    """After Yuan et al., "Hierarchical multi-interest co-network for coarse-grained ranking", 2022:
    interests of long and short histories, and a product with each item."""

    name: Literal["hcn"] = "hcn"
    interests: int = Field(4, ge=1, description="K: interests in a history.")
    short_length: int = Field(10, ge=1, description="Newest events that are the short history.")
    levels: int = Field(3, ge=1, description="How often the centres of interests are moved.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        **HistoryRankerOptions.search_space,
        "interests": {"choices": [2, 4, 8]},
    }


class HCN(FeatureRanker):
    """`(u_0 + sum_k a_k u_k) . e_i + b_i`: u_k are interests by `recsys.layers.interests.HCN`, u_0
    is what the request says, `a = softmax_k(u_k . e_i)`, and e_i, b_i are an item's alone.

    The paper's equations are not public; this is a reading of its abstract.
    """

    Config = HCNConfig
    _frozen: Tensor | None

    def __init__(
        self, config: HCNConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        width, dropout = config.width, config.dropout
        tasks = len(self.tasks)
        # of each task one product: its items differ, the interests are the same
        self.item_tower = deep_network(
            self.item_width, config.hidden, tasks * (width + 1), dropout=dropout
        )
        self.event = nn.Linear(self.item_width, width)
        self.request_tower = deep_network(self.request_width, config.hidden, width, dropout=dropout)
        self.extractors = nn.ModuleDict(
            {
                f"of_{history.name}": Extractor(
                    width, config.interests, config.max_length, config.short_length, config.levels
                )
                for history in self.histories
            }
        )
        self.register_buffer("_frozen", None, persistent=False)

    def digest(self, state: State) -> State:
        """Interests [B, 1 + K, D] of the request and of all its histories."""
        interests = [self.request_tower(state[REQUEST]).unsqueeze(1)]
        for history in self.histories:
            rows, vectors = state[item_rows_of(history.name)], state[vectors_of(history.name)]
            positions, kept = newest_first((rows != 0).sum(1), rows.shape[1])
            places = positions.unsqueeze(2).expand(-1, -1, vectors.shape[2])
            events = self.event(vectors.gather(1, places)) * kept.unsqueeze(2)
            interests.append(self.extractors[f"of_{history.name}"](events, kept).vectors)
        return {_INTERESTS: torch.cat(interests, dim=1)}

    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks]."""
        return self._rated(state[_INTERESTS], self.item_tower(items))

    def score(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M]; of a frozen ranker by vectors made before."""
        if self._frozen is None:
            return super().score(state, items)
        return self._rated(state[_INTERESTS], F.embedding(items, self._frozen))

    def _rated(self, interests: Tensor, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of interests [B, 1 + K, D] and what the tower made of the items
        [B, M, tasks * (D + 1)]."""
        width, by_task = interests.shape[2], []
        for item in items.split(width + 1, dim=2):
            # [B, 1 + K, M]: candidates side by side in memory, as they are many and interests few
            products = interests @ item[..., :width].transpose(1, 2)
            of_request, of_history = products[:, 0], products[:, 1:]
            mixed = (of_history.softmax(1) * of_history).sum(1)
            by_task.append(of_request + mixed + item[..., width])
        return torch.stack(by_task, dim=2)

    @torch.no_grad()
    def freeze(self) -> None:
        """Make the vectors of all items once."""
        parts = []
        for rows in self.items.everything().split(_CHUNK):
            values = self.items(rows)
            vectors = self.embeddings(values.ids, values.bags)
            joined = self._joined(self.items.features, vectors, values.numbers)
            parts.append(self.item_tower(joined))
        self._frozen = torch.cat(parts)

    def train(self, mode: bool = True) -> Self:
        """Learn, or answer."""
        if mode:
            self._frozen = None
        return super().train(mode)
