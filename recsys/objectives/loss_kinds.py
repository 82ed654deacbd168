"""The losses that a config may choose, each with the options that it alone has.

P rows, n negatives, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from recsys.lists.pairs import Pairs
from recsys.objectives.losses import Sets, bpr, calibrated_bce, sampled_softmax
from recsys.options import Chosen, Kind


class Compared(NamedTuple):
    """What a loss compares: queries [P, D], positives [P, D] of the item rows `targets` [P], and
    negatives [n, D] of `negative_ids` [n], which rows share by `sets`, drawn from `items`; `own`
    and `log_q` as in `sampled_softmax`."""

    queries: Tensor
    positives: Tensor
    negatives: Tensor
    targets: Tensor
    negative_ids: Tensor
    sets: Sets
    items: int
    own: Pairs | None = None
    log_q: tuple[Tensor, Tensor] | None = None


class LossKind(Kind, ABC):
    """A loss and its options."""

    @abstractmethod
    def of(self, compared: Compared) -> Tensor:
        """Losses [P]."""


class Softmax(LossKind):
    """Cross-entropy of the positive against the negatives."""

    name: Literal["softmax"] = "softmax"

    def of(self, compared: Compared) -> Tensor:
        """As `sampled_softmax`."""
        return sampled_softmax(
            *compared[:3],
            targets=compared.targets,
            negative_ids=compared.negative_ids,
            sets=compared.sets,
            own=compared.own,
            log_q=compared.log_q,
        )


class GBCE(LossKind):
    """Binary cross-entropy that makes up for uniform sampling: Petrov & Macdonald, gSASRec, RecSys
    2023."""

    name: Literal["gbce"] = "gbce"
    calibration: float = Field(
        0.75, ge=0, le=1, description="0 is bce, 1 undoes what sampling overstates."
    )

    def of(self, compared: Compared) -> Tensor:
        """As `calibrated_bce`."""
        return _calibrated(compared, self.calibration)


class BCE(LossKind):
    """Binary cross-entropy of the positive and the negatives."""

    name: Literal["bce"] = "bce"

    def of(self, compared: Compared) -> Tensor:
        """As `calibrated_bce` without calibration."""
        return _calibrated(compared, 0.0)


class BPR(LossKind):
    """The positive above each negative: Rendle et al., UAI 2009."""

    name: Literal["bpr"] = "bpr"

    def of(self, compared: Compared) -> Tensor:
        """As `bpr`."""
        return bpr(
            *compared[:3],
            targets=compared.targets,
            negative_ids=compared.negative_ids,
            sets=compared.sets,
            own=compared.own,
        )


def _calibrated(compared: Compared, calibration: float) -> Tensor:
    return calibrated_bce(
        *compared[:3],
        targets=compared.targets,
        negative_ids=compared.negative_ids,
        sets=compared.sets,
        own=compared.own,
        calibration=calibration,
        items=compared.items,
    )


AnyLoss = Annotated[Softmax | GBCE | BCE | BPR, Field(discriminator="name"), Chosen()]
