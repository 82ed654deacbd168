"""What retrievers and rankers share: inputs, and the contract with the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from feature_store.columns import TARGET
from feature_store.examples import RowsOf
from recsys.data.batch import Batch
from recsys.data.examples import Examples, Interactions
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.inputs import Input
from recsys.options import ModelConfig


class Loss(NamedTuple):
    """Sum of the losses of a batch, and the number (or sum of weights) of the terms in it."""

    total: Tensor
    weight: Tensor


class Cost(NamedTuple):
    """What fitting a model takes: about so many seconds, and what for, with what it holds."""

    seconds: float
    what: str


@dataclass(frozen=True)
class Columns:
    """Which features the entries along `dims` of a weight belong to: their names and widths. Those
    of a feature within a part of what is read, such as a history, are named `part.feature`.

    A checkpoint of other features is carried over by it.
    """

    dims: tuple[int, ...]
    widths: dict[str, int]


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """The model as it answers, without dropout and gradients, in the midst of its training."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class Model(nn.Module):
    """Reads requests. `inputs` names the tensors, `rows_of` what it is trained on.

    A model that `learns_by_gradient` is trained; any other is fitted where it is used.
    """

    learns_by_gradient: ClassVar[bool] = False
    rows_of: ClassVar[RowsOf] = RowsOf()
    inputs: tuple[Input, ...] = ()
    notes: tuple[str, ...] = ()
    """What people should know who measure it."""

    @classmethod
    def rows_for(cls, config: ModelConfig) -> RowsOf:
        """`rows_of`, where its options do not say otherwise."""
        return cls.rows_of

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Learn from all training events at once."""
        raise NotImplementedError(f"{type(self).__name__} learns by gradient: train it")

    def fit_cost(self, interactions: Interactions) -> Cost | None:
        """What fitting takes, where that is worth telling before it is done."""
        return None

    def inputs_of(self, batch: Batch) -> dict[str, Tensor]:
        """The tensors that `inputs` describes, cut and padded from a batch."""
        return {asked.name: asked.from_batch(batch) for asked in self.inputs}


class TrainedModel(Model, ABC):
    """A model that learns by gradient: the trainer calls `forward`.

    `Config` are its options. `columns` says of which features the columns of a weight are, by the
    weight's name; `own` names what the model keeps for a single feature besides its table. `wraps`
    names the part of a model that is another model, whose own trainings it may start from. `made`
    names buffers that it makes anew where a checkpoint's are of another size. `phases`
    are the ways in which it learns, of which a run may go through several, one after the other.
    """

    learns_by_gradient = True
    phases: ClassVar[tuple[str, ...]] = ("train",)
    Config: ClassVar[type[ModelConfig]]
    wraps: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.columns: dict[str, Columns] = {}
        self.own: dict[str, tuple[str, ...]] = {}
        self.made: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss of a batch; `step` seeds whatever is drawn."""

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Columns of examples that the loss needs besides `inputs`."""
        return (TARGET,) if self.rows_of.per == "event" else ()

    @property
    def together(self) -> str | None:
        """The column of examples whose rows with equal ids the loss needs in one batch."""
        return None

    @property
    def read_in_training(self) -> tuple[Input, ...]:
        """What `forward` reads of examples, where that is more than is read of requests."""
        return self.inputs

    def begin_phase(self, phase: str) -> None:
        """Before a training, and before anything is made of the model for it: which of `phases` it
        is. Weights that do not learn in it must ask for no gradient from now on."""

    def begin_epoch(self, epoch: int, goes_on: bool = False) -> None:
        """Before the first batch of an epoch, counted from 1, on every process.

        For what is made anew once an epoch, such as the vectors of all items. A training that is
        resumed within an epoch calls this once for the epoch that `goes_on`: what is made here must
        follow from the weights, and draw from no global random state; or be part of a checkpoint,
        and then stay as it is.
        """

    def end_epoch(self, epoch: int) -> None:
        """After the last batch of an epoch, before the model is validated and saved."""

    def training_reader(
        self, examples: Examples, config: ReaderConfig, *, seed: int, rank: int, world: int
    ) -> Reader:
        """Batches for `forward`: by event with its target or label, or whole sequences whose last
        `length` events are read and whose every event but the first is a target."""
        inputs = self.read_in_training
        if self.rows_of.per == "user":
            read = (asked.along_sequence() for asked in inputs)
            inputs = tuple(asked for asked in read if asked is not None)
        return examples.reader(
            "train",
            inputs,
            config,
            extra=self.judged_by,
            together=self.together,
            seed=seed,
            rank=rank,
            world=world,
        )
