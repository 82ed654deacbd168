"""What SASRec and its relatives share: every event of a history predicts the next one.

B users, T positions, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from feature_store.columns import HISTORY, HISTORY_TIME, TIME
from feature_store.errors import ConfigError
from feature_store.examples import RowsOf
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.embeddings.initial_weights import standard_deviation
from recsys.embeddings.layout import make_layout
from recsys.embeddings.options import EmbeddingsConfig
from recsys.embeddings.tables import Embeddings
from recsys.inputs import History, Input, Moment, Times
from recsys.layers.dropout import Dropout
from recsys.model import Loss, answering
from recsys.objectives.objective import Objective, ObjectiveConfig
from recsys.objectives.targets import targets_of_sequences
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.hidden_ids import HiddenIds
from recsys.retrievers.item_texts import ItemTextConfig, ItemTexts
from recsys.retrievers.trained import TrainedRetriever
from recsys.text.tfidf import WordSpace


class SequentialConfig(ObjectiveConfig):
    """Options of the family."""

    width: int = Field(50, ge=2, description="D: width of item and user vectors.")
    blocks: int = Field(2, ge=1, description="Blocks, one on the other.")
    heads: int = Field(1, ge=1, description="Heads of a block, which share its width.")
    max_length: int = Field(200, ge=1, description="T: events of the history that are read.")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Share of numbers that a training step hides."
    )
    text: ItemTextConfig | None = Field(
        None,
        description="Read the texts of items, too: an item's vector is that of its id plus that of "
        "its text, or of its text alone where it has no training events.",
    )

    search_space: ClassVar = {
        **ObjectiveConfig.search_space,
        "blocks": {"low": 1, "high": 3},
        "dropout": {"low": 0.0, "high": 0.5},
    }


class Moments(NamedTuple):
    """When each event was [B, T], and when what follows it was asked for [B, T]; seconds."""

    times: Tensor
    following: Tensor


class SequentialRetriever(TrainedRetriever):
    """Item vectors are the input embeddings; a user is the last position's output.

    A subclass makes `transform`, and calls `read_times` where it reads when things happened. One
    whose items are no ids makes `make_items` and `look_up` as well.
    """

    config: SequentialConfig

    def __init__(
        self,
        config: SequentialConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ConfigError(
                f"retriever.width = {config.width} is not a multiple of "
                f"retriever.heads = {config.heads}"
            )
        self.config = config
        self.seed = seed
        self.item = examples.schema.item
        self.inputs: tuple[Input, ...] = (History(self.item, config.max_length),)
        self.timed = False
        self.make_items(embeddings, examples)
        # added to the items' vectors, so never in their table
        self.positions = nn.Parameter(torch.empty(config.max_length, config.width))
        nn.init.normal_(self.positions, std=standard_deviation(embeddings))
        self.drop = Dropout(config.dropout)
        targets = partial(targets_of_sequences, examples, config.max_length + 1)
        self.objective = Objective(config, examples, seed, targets)

    @classmethod
    def rows_for(cls, config: ModelConfig) -> RowsOf:
        """With the texts of items where they are read."""
        return replace(cls.rows_of, texts=getattr(config, "text", None) is not None)

    def make_items(self, embeddings: EmbeddingsConfig, examples: Examples) -> None:
        """Make what `look_up` reads."""
        config = self.config
        layout = make_layout([examples.spec(self.item)], config.width, embeddings)
        layout.require(self.item, config.width)
        self.embeddings = Embeddings(layout, self.seed)
        if config.text is not None:
            self.texts = ItemTexts(config.text, examples, config.width)
            self.hidden = HiddenIds(examples.train_events, config.text.id_dropout, self.seed)

    def look_up(self, rows: Tensor, step: int | None = None, texts: Tensor | None = None) -> Tensor:
        """Vectors [..., D] of item rows [...], not yet as they are compared; `step` is that of a
        training, `texts` [..., D] are other ones than theirs."""
        vectors = self.embeddings({self.item: rows})[self.item]
        if self.config.text is None:
            return vectors
        hidden = self.hidden(rows, step).unsqueeze(-1)
        return vectors.masked_fill(hidden, 0) + (self.texts(rows) if texts is None else texts)

    def read_times(self) -> None:
        """Ask for the times of the history and of the request as well."""
        times = Times(History(self.item, self.config.max_length))
        self.inputs = (*self.inputs, times, Moment(times))
        self.timed = True

    @abstractmethod
    def transform(self, history: Tensor, events: Tensor, moments: Moments | None) -> Tensor:
        """What is predicted after each event [B, T, D].

        Args:
            history: item rows [B, T], padded with 0 behind.
            events: their vectors [B, T, D].
            moments: where the model reads times.
        """

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D] after the last event of the history [B, T]."""
        history = inputs[HISTORY]
        events = self.look_up(history)
        return single_interest(
            self.objective.unit(self.user(history, events, self.moments(inputs)))
        )

    def moments(self, inputs: dict[str, Tensor]) -> Moments | None:
        """When the events were, and at last the request; of a model that reads it."""
        if not self.timed:
            return None
        times, last = inputs[HISTORY_TIME], _last(inputs[HISTORY])
        return Moments(times, times.roll(-1, 1).scatter(1, last, inputs[TIME].unsqueeze(1)))

    def user(self, history: Tensor, events: Tensor, moments: Moments | None) -> Tensor:
        """User vectors [B, D], not yet as they are compared; arguments as of `transform`."""
        out = self.transform(history, events, moments)
        last = _last(history).unsqueeze(2).expand(-1, 1, out.shape[2])
        return out.gather(1, last).squeeze(1)

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        return self.objective.unit(self.look_up(rows))

    def word_space(self, examples: Examples) -> WordSpace | None:
        """Where it reads texts by TF-IDF."""
        return None if self.config.text is None else self.config.text.words(examples)

    def described(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Item vectors [n, D] of other texts."""
        return self.objective.unit(self.look_up(rows, texts=self.texts.adapted(vectors)))

    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss at every position that has a next event."""
        history = batch.padded(HISTORY, self.config.max_length + 1)
        targets = history[:, 1:]
        valid = targets != 0
        # a last event is a target alone: positions count back from the one before it, as serving's
        read = history[:, :-1].masked_fill(~valid, 0)
        drawn = self.objective.draw(targets[valid], step, lambda: self._hardest(batch, read))
        rows = torch.cat([history.flatten(), drawn.ids])
        vectors = self.look_up(rows, step)
        events = vectors[: history.numel()].view(*history.shape, vectors.shape[1])
        moments = None
        if self.timed:
            times = batch.padded(HISTORY_TIME, self.config.max_length + 1)
            moments = Moments(times[:, :-1], times[:, 1:])
        out = self.transform(read, events[:, :-1], moments)
        losses = self.objective(
            out[valid], events[:, 1:][valid], vectors[history.numel() :], targets[valid], drawn
        )
        return Loss(losses.sum(), valid.sum())

    def ago(self, history: Tensor) -> Tensor:
        """How many events lie between each position [B, T] and the last one of its history."""
        steps = torch.arange(history.shape[1], device=history.device)
        return ((history != 0).sum(1, keepdim=True) - 1 - steps).clamp(min=0)

    def _hardest(self, batch: Batch, read: Tensor) -> Tensor:
        """Item rows that score best after each user's last event but one."""
        inputs = {HISTORY: read}
        if self.timed:
            times = batch.padded(HISTORY_TIME, self.config.max_length + 1)
            last = (read != 0).sum(1, keepdim=True)
            inputs |= {HISTORY_TIME: times[:, :-1], TIME: times.gather(1, last).squeeze(1)}
        rows = self.objective.sampler.everything()
        history = batch.padded(HISTORY, self.config.max_length + 1)
        with answering(self):
            users = self.encode(inputs).vectors
            return self.objective.hardest(users, history, self.item_matrix(rows), rows)


def _last(history: Tensor) -> Tensor:
    """Where the last event of each history [B, T] lies [B, 1]."""
    return ((history != 0).sum(1).clamp(min=1) - 1).unsqueeze(1)
