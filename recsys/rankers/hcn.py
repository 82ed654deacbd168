"""HCN: a coarse ranker, whose work for a request does not grow with the number of its items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.inputs import Input
from recsys.layers.deep import deep_network
from recsys.layers.interests import HCN as Extractor
from recsys.layers.interests import newest_first
from recsys.layers.repeats import REPEATS
from recsys.model import Loss
from recsys.options import changed
from recsys.rankers.base import State
from recsys.rankers.features import (
    ITEMS,
    REQUEST,
    FeatureRanker,
    RepeatsOptions,
    item_rows_of,
    vectors_of,
)

_CHUNK = 65_536  # items whose vectors are made at a time
_INTERESTS = "interests"


class HCNConfig(RepeatsOptions):
    """After Yuan et al., "Hierarchical multi-interest co-network for coarse-grained ranking", 2022:
    interests of long and short histories, and a product with each item."""

    name: Literal["hcn"] = "hcn"
    interests: int = Field(4, ge=1, description="K: interests in a history.")
    short_length: int = Field(10, ge=1, description="Newest events that are the short history.")
    levels: int = Field(3, ge=1, description="How often the centres of interests are moved.")
    teacher: Path | None = Field(
        None,
        description="A finished run of a ranker, such as the fine one behind it, whose first "
        "task's probabilities it learns beside the labels.",
    )
    taught: float = Field(
        0.5, gt=0, le=1, description="Share of the teacher in the loss, of labels the rest."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        **RepeatsOptions.search_space,
        "interests": {"choices": [2, 4, 8]},
    }

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if self.teacher is None and changed(self, "taught"):
            raise ValueError("taught is the share of a teacher: name its run in teacher")
        return self


class Teacher(Protocol):
    """A finished ranker, which is asked for the items of training's batches."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it reads of a batch."""

    def scoring(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """What gives the logits [B, M] of items [B, M]."""


class HCN(FeatureRanker):
    """`(u_0 + sum_k a_k u_k) . e_i + b_i`: u_k are interests by `recsys.layers.interests.HCN`, u_0
    is what the request says, `a = softmax_k(u_k . e_i)`, and e_i, b_i are an item's alone. With
    `repeats` there is added what is linear in how often and how lately histories hold the item.

    The paper's equations are not public; this is a reading of its abstract.
    """

    Config = HCNConfig
    _vectors: Tensor | None
    _biases: Tensor | None
    _events: Tensor | None

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
        self.again: nn.Linear | None = None
        if config.repeats:
            self.again = nn.Linear(REPEATS * len(self.histories), tasks, bias=False)
        for made in ("_vectors", "_biases", "_events"):  # of all items, once it is frozen
            self.register_buffer(made, None, persistent=False)
        self._taught = config.taught
        self._teachers: tuple[Teacher, ...] = ()  # no modules: their weights are not its own

    def learn_from(self, teacher: Teacher) -> None:
        """Learn what a teacher says, too, from now on."""
        self._teachers = (teacher,)

    @property
    def read_in_training(self) -> tuple[Input, ...]:
        """The teacher's, too; of a list that both read, as much as it reads itself."""
        taught = (asked for teacher in self._teachers for asked in teacher.inputs)
        return tuple({asked.name: asked for asked in (*taught, *self.inputs)}.values())

    def loss_of(self, logits: Tensor, batch: Batch) -> Loss:
        """Binary cross-entropy, to labels and to the teacher's probabilities of the first task.
        Hinton et al., Distilling the knowledge in a neural network, 2015, at temperature 1."""
        loss = super().loss_of(logits, batch)
        for teacher in self._teachers:
            with torch.no_grad():
                told = teacher.scoring(batch)(batch.id(self.item).unsqueeze(1)).squeeze(1)
            apart = F.binary_cross_entropy_with_logits(logits[:, 0], told.float().sigmoid())
            total = (1 - self._taught) * loss.total + self._taught * apart * loss.weight
            loss = Loss(total, loss.weight)
        return loss

    def encode(self, inputs: dict[str, Tensor]) -> State:
        """As `digest`; of a frozen ranker by vectors of events that were made before."""
        if self._events is None:
            return super().encode(inputs)
        state, _ = self._looked_up(inputs, None, histories=())
        told = {}
        for history in self.histories:
            rows = state[item_rows_of(history.name)] = inputs[history.name]
            positions, kept = newest_first((rows != 0).sum(1), rows.shape[1])
            told[history.name] = F.embedding(rows.gather(1, positions), self._events), kept
        return self._digested(state, told)

    def digest(self, state: State) -> State:
        """Interests [B, 1 + K, D] of the request and of all its histories."""
        told = {}
        for history in self.histories:
            rows, vectors = state[item_rows_of(history.name)], state[vectors_of(history.name)]
            positions, kept = newest_first((rows != 0).sum(1), rows.shape[1])
            places = positions.unsqueeze(2).expand(-1, -1, vectors.shape[2])
            told[history.name] = self.event(vectors.gather(1, places)), kept
        return self._digested(state, told)

    def _digested(self, state: State, told: dict[str, tuple[Tensor, Tensor]]) -> State:
        """What is kept of requests and, of each history, events [B, L, D], the newest first, of
        which some are there [B, L]."""
        interests = [self.request_tower(state[REQUEST]).unsqueeze(1)]
        for name, (events, kept) in told.items():
            interests.append(self.extractors[f"of_{name}"](events, kept).vectors)
        digested = {_INTERESTS: torch.cat(interests, dim=1)}
        if self.again is None:
            return digested
        of_items = [item_rows_of(history.name) for history in self.histories]
        return self.with_ranks({**digested, **{name: state[name] for name in of_items}})

    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks]."""
        return self._answered(state, *self._parted(self.item_tower(items)))

    def score(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M]; of a frozen ranker by vectors made before."""
        if self._vectors is None or self._biases is None:
            return super().score(state, items)
        vectors, biases = F.embedding(items, self._vectors), F.embedding(items, self._biases)
        return self._answered({**state, ITEMS: items}, vectors, biases)

    def _parted(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [..., tasks * D] and biases [..., tasks] of what the tower made of items: apart,
        so that each vector fills whole lines of a cache."""
        parts = items.unflatten(-1, (len(self.tasks), -1))
        return parts[..., :-1].flatten(-2), parts[..., -1]

    def _answered(self, state: State, vectors: Tensor, biases: Tensor) -> Tensor:
        """Logits [B, M, tasks] of `_parted` items."""
        logits = self._rated(state[_INTERESTS], vectors, biases)
        if self.again is None:
            return logits
        repeated = [self.repeats_in(history.name, state) for history in self.histories]
        again: Tensor = self.again(torch.cat(repeated, dim=2))
        return logits + again

    def _rated(self, interests: Tensor, vectors: Tensor, biases: Tensor) -> Tensor:
        """Logits [B, M, tasks] of interests [B, 1 + K, D] and `_parted` items."""
        by_task = []
        for vector in vectors.split(interests.shape[2], dim=2):
            # [B, 1 + K, M]: candidates side by side in memory, as they are many and interests few
            products = interests @ vector.transpose(1, 2)
            of_request, of_history = products[:, 0], products[:, 1:]
            by_task.append(of_request + (of_history.softmax(1) * of_history).sum(1))
        return torch.stack(by_task, dim=2) + biases

    @torch.no_grad()
    def freeze(self) -> None:
        """Make the vectors of all items once, and what they are as events."""
        towers, events = [], []
        for rows in self.items.everything().split(_CHUNK):
            values = self.items(rows)
            vectors = self.embeddings(values.ids, values.bags)
            joined = self._joined(self.items.features, vectors, values.numbers)
            towers.append(self.item_tower(joined))
            events.append(self.event(joined))
        vectors, biases = self._parted(torch.cat(towers))
        self._vectors, self._biases = vectors.contiguous(), biases.contiguous()
        self._events = torch.cat(events)

    def train(self, mode: bool = True) -> Self:
        """Learn, or answer."""
        if mode:
            self._vectors = self._biases = self._events = None
        return super().train(mode)
