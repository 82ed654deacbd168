"""The contract of rankers. B requests (a user, and what else is known), M items of each."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from feature_store.columns import LABEL, label_of
from feature_store.errors import ConfigError
from feature_store.examples import RowsOf
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.model import Loss, TrainedModel

State: TypeAlias = dict[str, Tensor]


class Explanation(NamedTuple):
    """What logits are made of, in float64: `contributions.sum(2) + bias` are the logits, before any
    calibration."""

    contributions: Tensor  # [B, M, C], in the order of the ranker's `concepts`
    bias: Tensor  # [B, M], whatever speaks for or against without a name


class Ranker(TrainedModel):
    """Says how likely the labels of a user and an item are: a logit for each of its `tasks`, the
    first of which every row has a label of.

    `inputs` describe the request; `item` names the column of the item, which is asked for beside
    them. A request is encoded once, whatever the number of its items, and an item's logits do not
    depend on the others that are asked for. A row with a single item is a list with M = 1.

    A ranker that can `explain` its logits names what they are made of as `concepts`.
    """

    rows_of = RowsOf(per="event", histories={}, labels=True)
    tasks: tuple[str, ...] = (LABEL,)
    item: str
    concepts: tuple[str, ...] = ()
    position: bool = False
    """Whether it learns from where items were shown."""

    def freeze(self) -> None:
        """Make once what is the same for all requests, now that the weights move no more; what is
        made is forgotten when the ranker learns again."""

    @abstractmethod
    def encode(self, inputs: dict[str, Tensor]) -> State:
        """What is kept of requests, tensors [B, ...], from those that `inputs` describes."""

    @abstractmethod
    def score(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M]."""

    @abstractmethod
    def logits(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        """`score` of `encode`, with one lookup of every table: the optimizer of a sharded table
        steps with each lookup, so that this is what training calls."""

    def explain(self, inputs: dict[str, Tensor], items: Tensor) -> Explanation:
        """What `concepts` contribute to the logits of item rows [B, M].

        Raises ConfigError for a ranker whose logits are not made of any.
        """
        raise self._without_concepts()

    def labelled(self, rows: Tensor) -> Tensor:
        """Of which `concepts` the log says that item rows [n] are, 0 or 1 [n, C].

        Raises ConfigError as `explain`.
        """
        raise self._without_concepts()

    def recognised(self, rows: Tensor) -> Tensor:
        """Of which `concepts` the ranker takes item rows [n] to be, logits [n, C].

        Raises ConfigError as `explain`.
        """
        raise self._without_concepts()

    def _without_concepts(self) -> ConfigError:
        return ConfigError(f"{type(self).__name__} has no concepts that its logits are made of")

    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, tasks] of every row's item, as serving computes them."""
        state = self.encode(self.inputs_of(batch))
        return self.score(state, batch.id(self.item).unsqueeze(1)).squeeze(1)

    def predict_shown(self, batch: Batch) -> Tensor:
        """Logits [B, tasks] of every row's item where it was shown, if the ranker learns from that;
        at serving nobody knows."""
        return self.predict(batch)

    def training_reader(
        self, examples: Examples, config: ReaderConfig, *, seed: int, rank: int, world: int
    ) -> Reader:
        """As of any trained model, but never bucketed: rows with histories of one length are not
        like the others, whose labels and whose statistics, as Dice takes them, a step is to
        stand for."""
        config = config.model_copy(update={"bucket_batches": 0})
        return super().training_reader(examples, config, seed=seed, rank=rank, world=world)

    def labels(self, batch: Batch) -> Tensor:
        """The labels [B, tasks] of a batch, in the order of `tasks`; NaN where a row has none."""
        return torch.stack([batch.label(task) for task in self.tasks], dim=1)

    @property
    def judged_by(self) -> tuple[str, ...]:
        """The item and its labels."""
        return self.item, *map(label_of, self.tasks)

    def forward(self, batch: Batch, step: int) -> Loss:
        """What the logits of a batch lose."""
        items = batch.id(self.item).unsqueeze(1)
        return self.loss_of(self.logits(self.inputs_of(batch), items).squeeze(1).float(), batch)

    def loss_of(self, logits: Tensor, batch: Batch) -> Loss:
        """Binary cross-entropy of logits [B, tasks] and every label that there is."""
        labels = self.labels(batch)
        known = ~labels.isnan()
        losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
        return Loss((losses * known).sum(), known.sum().to(losses.dtype))
