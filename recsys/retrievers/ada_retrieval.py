"""Ada-Retrieval: a sequence model that retrieves in rounds, and looks at what it has found so far.

B users, T events, R rounds, L items a round, D width, N items, P targets.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from feature_store.columns import HISTORY, HISTORY_TIME, TIME
from feature_store.errors import ConfigError
from feature_store.examples import RowsOf
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.round_adapters import ItemAdapter, UserAdapter
from recsys.lists.merging import IN_ROUNDS
from recsys.model import Loss, answering
from recsys.objectives.objective import Objective
from recsys.objectives.targets import draw_targets, targets_of_sequences
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries
from recsys.retrievers.hstu import HSTU, HSTUConfig
from recsys.retrievers.sasrec import SASRec, SASRecConfig
from recsys.retrievers.sequential import Moments, SequentialConfig, SequentialRetriever
from recsys.retrievers.trained import TrainedRetriever

BACKBONES: dict[type[SequentialConfig], type[SequentialRetriever]] = {
    SASRecConfig: SASRec,
    HSTUConfig: HSTU,
}


class AdaRetrievalConfig(ModelConfig):
    """Li et al., "Ada-Retrieval: an adaptive multi-round retrieval paradigm for sequential
    recommendations", AAAI 2024. Its two stages: train the backbone as a run of its own, then start
    from it with `trainer.start_from = RUN`."""

    name: Literal["ada_retrieval"] = "ada_retrieval"
    backbone: SASRecConfig | HSTUConfig = Field(
        SASRecConfig(),
        discriminator="name",
        description="The sequence model, with all its options.",
    )
    rounds: int = Field(5, ge=1, description="R: of retrieval.")
    list_size: int = Field(
        100, ge=1, description="Items over all rounds; each retrieves its share of them."
    )
    decay: float = Field(
        0.3, gt=0, le=1, description="lambda: what a round's loss counts for beside the one before."
    )
    targets_per_user: int = Field(
        4, ge=1, description="Events of a history that a step trains on, each from those before it."
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Of the adapters.")
    freeze_backbone: bool = Field(
        False,
        description="Train the adapters alone: the first round stays what the backbone's own run "
        "found. Goes with trainer.start_from.",
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "rounds": {"choices": [2, 3, 5, 10]},
        "decay": {"low": 0.1, "high": 1.0},
        "dropout": {"low": 0.0, "high": 0.5},
    }

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.freeze_backbone and self.rounds == 1:
            raise ValueError("freeze_backbone leaves a single round nothing to learn: set rounds")
        return self

    @property
    def max_length(self) -> int:
        """T: events of the history that are read."""
        return self.backbone.max_length

    @property
    def matryoshka(self) -> tuple[int, ...]:
        """Widths of nested vectors: those of the backbone are those of every round."""
        return self.backbone.matryoshka

    @property
    def round_size(self) -> int:
        """L: `ceil(list_size / rounds)`."""
        return -(-self.list_size // self.rounds)


class AdaRetrieval(TrainedRetriever):
    """The first round is the backbone's own. Later ones read a history that has looked at the lists
    before, and end in a vector that knows those before.

    Lists that are looked at hold what the user has had, too; those that are answered do not. An
    answer is round after round, and scores descend within each.
    """

    Config = AdaRetrievalConfig
    config: AdaRetrievalConfig  # type: ignore[assignment]
    wraps = "backbone"
    merge = IN_ROUNDS
    catalogue: Tensor

    def __init__(
        self,
        config: AdaRetrievalConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.backbone = BACKBONES[type(config.backbone)](
            config.backbone, embeddings, examples, seed
        )
        self.inputs = self.backbone.inputs
        longest, count = config.max_length + 1, config.targets_per_user
        targets = partial(targets_of_sequences, examples, longest, count)
        self.objective = Objective(config.backbone, examples, seed, targets)
        rows = self.objective.sampler.everything()
        if config.rounds * config.round_size > len(rows):
            raise ConfigError(
                f"retriever.list_size = {config.list_size} in {config.rounds} rounds asks for more "
                f"than the {len(rows)} items that have training events: choose a smaller one"
            )
        self.register_buffer("catalogue", rows, persistent=False)
        width = config.backbone.width
        self.item_adapter = ItemAdapter(config.round_size, width, config.dropout)
        self.user_adapter = UserAdapter(width, config.dropout)
        if config.freeze_backbone:
            self.backbone.requires_grad_(False)
            # TorchRec shards what learns alone: what is looked up is detached instead
            self.backbone.embeddings.sharded.requires_grad_()

    @classmethod
    def rows_for(cls, config: ModelConfig) -> RowsOf:
        """Those of the backbone."""
        assert isinstance(config, AdaRetrievalConfig)
        return BACKBONES[type(config.backbone)].rows_for(config.backbone)

    def train(self, mode: bool = True) -> Self:
        """As of any module; a frozen backbone answers as it serves."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.backbone.eval()
        return self

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, R, D]; weights [B, R] are the lengths of the rounds' lists."""
        history = inputs[HISTORY]
        vectors = self._look_up(torch.cat([history.flatten(), self.catalogue]))
        events = vectors[: history.numel()].view(*history.shape, vectors.shape[1])
        users = self.rounds(
            history, events, self.backbone.moments(inputs), vectors[history.numel() :]
        )
        weights = torch.full_like(users[:, :, 0], float(self.config.round_size))
        return Queries(self.objective.unit(users), weights)

    def rounds(
        self, history: Tensor, events: Tensor, moments: Moments | None, items: Tensor
    ) -> Tensor:
        """User vectors [B, R, D] of all rounds, not yet as they are compared.

        Args:
            history: item rows [B, T], padded with 0 behind.
            events: their vectors [B, T, D].
            moments: where the backbone reads times.
            items: vectors [N, D] of the `catalogue` [N].
        """
        compared = self.objective.unit(items.detach()).T
        users = [self.backbone.user(history, events, moments)]
        retrieved = history.new_empty(history.shape[0], 0)  # rows of `items`
        lists: list[Tensor] = []
        for _ in range(1, self.config.rounds):
            scores = self.objective.unit(users[-1].detach()) @ compared
            scores = scores.scatter(1, retrieved, float("-inf"))
            best = scores.topk(self.config.round_size, dim=1).indices
            retrieved = torch.cat([retrieved, best.to(retrieved.dtype)], dim=1)
            lists.append(F.embedding(best, items))
            adapted = self.item_adapter(events, torch.stack(lists, dim=1))
            user = self.backbone.user(history, adapted, moments)
            users.append(self.user_adapter(user, torch.stack(users, dim=1)))
        return torch.stack(users, dim=1)

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        return self.backbone.embed_items(rows)

    def forward(self, batch: Batch, step: int) -> Loss:
        """`sum_r lambda^(r-1) loss_r` of `targets_per_user` events of each history, drawn anew at
        every step; the loss of a round is the backbone's."""
        config, length = self.config, self.config.max_length
        history = batch.padded(HISTORY, length + 1)
        users, ends = draw_targets(
            history, config.targets_per_user, longest=length + 1, seed=self.seed, step=step
        )
        targets = history[users, ends]
        longest = int(ends.max()) if len(ends) else 1  # nobody reads further
        before = torch.arange(longest, device=history.device) < ends.unsqueeze(1)
        inputs = {HISTORY: history[users, :longest].masked_fill(~before, 0)}
        if self.backbone.timed:
            times = batch.padded(HISTORY_TIME, length + 1)[users]
            inputs |= {
                HISTORY_TIME: times[:, :longest],
                TIME: times.gather(1, ends.unsqueeze(1))[:, 0],
            }
        drawn = self.objective.draw(targets, step, lambda: self._hardest(inputs, targets))
        vectors = self._look_up(torch.cat([history.flatten(), self.catalogue]), step)
        events = vectors[: history.numel()].view(*history.shape, vectors.shape[1])[users]
        items = vectors[history.numel() :]
        queries = self.rounds(
            inputs[HISTORY], events[:, :longest], self.backbone.moments(inputs), items
        )
        positives, negatives = (
            F.embedding(torch.searchsorted(self.catalogue, rows), items)
            for rows in (targets, drawn.ids)
        )
        losses = [
            self.objective(query, positives, negatives, targets, drawn).sum()
            * config.decay**earlier
            for earlier, query in enumerate(queries.unbind(1))
        ]
        total = torch.stack(losses).sum()
        return Loss(total, total.new_tensor(len(targets)))

    def _hardest(self, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        seen = torch.cat([inputs[HISTORY], targets.unsqueeze(1)], dim=1)
        with answering(self):
            users = self.encode(inputs).vectors
            items = self.item_matrix(self.catalogue)
            return self.objective.hardest(users, seen, items, self.catalogue)

    def _look_up(self, rows: Tensor, step: int | None = None) -> Tensor:
        vectors = self.backbone.look_up(rows, step)
        return vectors.detach() if self.config.freeze_backbone else vectors
