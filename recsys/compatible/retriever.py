"""Retrievers whose users ask an old index, and those that they were made of.

B users, K interests, D width, n items, N item rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.compatible.contract import Bridge, Learnt, OldItems
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.inputs import Input
from recsys.model import Columns, Loss, TrainedModel
from recsys.retrievers.base import Queries, VectorRetriever
from recsys.retrievers.trained import TrainedRetriever
from recsys.serving.manifest import LineageRecord

Answers = Callable[[Batch, int], Tensor]
"""Queries [n, d_old] of the old model for the first n users of a batch."""


class Origin(NamedTuple):
    """The space of the old index, and the versions that the new model comes after."""

    space: str
    lineage: LineageRecord


class Compatible(VectorRetriever, TrainedModel):
    """A new user tower over the old items, which lie as they did; items that the old index lacks
    stand where the bridge puts them.

    `reembedded` is the new model in its own space, for whoever has re-embedded all items. A bridge
    that learns does so together with the backbone; `answers` are the old model's, where it asks for
    them.
    """

    wraps = "backbone"
    old: Tensor
    known: Tensor

    def __init__(
        self,
        backbone: TrainedRetriever,
        bridge: Bridge,
        old: OldItems,
        *,
        answers: Answers | None = None,
        users: float = 0.0,
        origin: Origin | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.bridge = backbone, bridge
        self.answers, self.users = answers, users
        self.origin = origin
        self.inputs, self.merge = backbone.inputs, backbone.merge
        self.needs_history = backbone.needs_history
        self.rows_of = backbone.rows_of  # type: ignore[misc]
        self.columns = {
            f"backbone.{name}": Columns(of.dims, of.widths) for name, of in backbone.columns.items()
        }
        self.own = {
            feature: tuple(f"backbone.{name}" for name in names)
            for feature, names in backbone.own.items()
        }
        self.register_buffer("old", old.vectors, persistent=False)
        self.register_buffer("known", old.known, persistent=False)
        backbone.objective.companion = bridge.losses if isinstance(bridge, Learnt) else None

    @property
    def judged_by(self) -> tuple[str, ...]:
        """As of the backbone."""
        return self.backbone.judged_by

    @property
    def together(self) -> str | None:
        """As of the backbone."""
        return self.backbone.together

    @property
    def read_in_training(self) -> tuple[Input, ...]:
        """As of the backbone."""
        return self.backbone.read_in_training

    def begin_phase(self, phase: str) -> None:
        """As of the backbone."""
        self.backbone.begin_phase(phase)

    def begin_epoch(self, epoch: int, goes_on: bool = False) -> None:
        """As of the backbone."""
        self.backbone.begin_epoch(epoch, goes_on)

    def end_epoch(self, epoch: int) -> None:
        """As of the backbone."""
        self.backbone.end_epoch(epoch)

    def training_reader(
        self, examples: Examples, config: ReaderConfig, *, seed: int, rank: int, world: int
    ) -> Reader:
        """As of the backbone."""
        return self.backbone.training_reader(examples, config, seed=seed, rank=rank, world=world)

    def forward(self, batch: Batch, step: int) -> Loss:
        """The backbone's loss, in which the bridge has its part; and that of users whom the old
        model was asked about."""
        loss = self.backbone(batch, step)
        count = math.ceil(self.users * len(batch))
        if not count or self.answers is None or not isinstance(self.bridge, Learnt):
            return Loss(*loss)
        inputs = {name: part[:count] for name, part in self.backbone.inputs_of(batch).items()}
        queries = self.bridge.own_queries(self.backbone.encode(inputs).vectors).squeeze(1)
        asked = self.answers(batch, count).to(queries.device)
        return Loss(loss[0] + loss[1] * self.bridge.users(queries, asked), loss[1])

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Users' vectors [B, K, D] as they ask the old index."""
        queries = self.backbone.encode(inputs)
        return Queries(self.bridge.asked(self.bridge.own_queries(queries.vectors)), queries.weights)

    def embed_items(self, rows: Tensor) -> Tensor:
        """The old vectors [n, D] of item rows [n], and those of new items among them."""
        own = self.bridge.own_items(self.backbone.embed_items(rows))
        known = self.known[rows].unsqueeze(1)
        return self.bridge.stored(torch.where(known, self.old[rows], self.bridge.items(own)))

    def compared(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] as they are."""
        return vectors

    def variants(self) -> Mapping[str, VectorRetriever]:
        """The model over items that were all re-embedded."""
        return {"reembedded": self.reembedded}

    @property
    def reembedded(self) -> Reembedded:
        """The new model in its own space."""
        return Reembedded(self)

    @torch.no_grad()
    def in_old_space(self, rows: Tensor) -> Tensor:
        """Where the new model's vectors of item rows [n] stand in the old space [n, d_old]."""
        return self.bridge.items(self.reembedded.embed_items(rows))

    @property
    def space(self) -> str:
        """The space of what lies in the index: the old one, or another where the old vectors are
        stored otherwise."""
        assert self.origin is not None
        space = self.origin.space
        if self.bridge.leaves_index:
            return space
        digest = hashlib.sha256(space.encode())
        for name, tensor in sorted(self.bridge.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class Reembedded(VectorRetriever):
    """A compatible retriever's model in its own space; the weights are shared."""

    def __init__(self, whole: Compatible) -> None:
        super().__init__()
        self.whole = whole
        self.inputs, self.merge = whole.inputs, whole.merge
        self.needs_history = whole.needs_history

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Users' vectors [B, K, d_new]."""
        queries = self.whole.backbone.encode(inputs)
        return Queries(self.whole.bridge.own_queries(queries.vectors), queries.weights)

    def embed_items(self, rows: Tensor) -> Tensor:
        """The new vectors [n, d_new] of item rows [n]."""
        return self.whole.bridge.own_items(self.whole.backbone.embed_items(rows))
