"""The contract of rankers. B rows (a user, an item and what else is known), D widths."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Batch
from recsys.model import Loss, TrainedModel


class Ranker(TrainedModel):
    """Says how likely each row's label is. `item` names the column of the item.

    The one description of it is `logits`: training, evaluation and the exported program all run
    it on the tensors that `inputs` names.
    """

    shape = "labelled"
    tasks: ClassVar[tuple[str, ...]] = ("label",)
    item: str

    @abstractmethod
    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits [B, tasks] from the tensors that `inputs` describes."""

    def score(self, batch: Batch) -> Tensor:
        """Logits [B, tasks] of a batch."""
        return self.logits(self.inputs_of(batch))

    def forward(self, batch: Batch, step: int) -> Loss:
        """Binary cross-entropy of every label."""
        labels = torch.stack([batch.label(task) for task in self.tasks], dim=1)
        losses = F.binary_cross_entropy_with_logits(self.score(batch), labels, reduction="none")
        return Loss(losses.sum(), losses.new_tensor(losses.numel()))
