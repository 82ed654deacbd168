"""How much a log can say of a policy, and what to beware of.

L lists, k places; `weights` [L, k], `target` [L, k] rows of the log's items, -1 for none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.evaluation.off_policy.logged_lists import LoggedLists

_FEW = 30  # lists below which means are not normal yet
_MUCH = 0.05  # a share that is worth a word


@dataclass(frozen=True)
class Support:
    """Shares are of places of the target's lists.

    Attributes:
        agreeing: where the log shows the target's item, and it tells something.
        unsupported: whose item the log had no chance to show there, estimated: weights are 1 on
            average where it had one, and 0 where it had none; with its standard `error`.
        surely_not: of these, where it is certain: something else was shown, and that was sure.
        unseen: whose item the log never shows to anybody, anywhere.
        effective: by place [k], how many lists of the target itself would tell as much,
            `(sum w) ** 2 / sum w ** 2`. Source: Kong, Technical Report 348, University of Chicago,
            1992.
        largest: the largest weight.
        clipped: weights that were cut.
    """

    agreeing: float
    unsupported: float
    error: float
    surely_not: float
    unseen: float
    effective: np.ndarray
    largest: float
    clipped: int

    @classmethod
    def of(
        cls, lists: LoggedLists, target: np.ndarray, weights: np.ndarray, clip: float | None
    ) -> Support:
        """Of weights that are not clipped yet."""
        asked = target >= 0
        places = max(int(asked.sum()), 1)
        squares = (weights**2).sum(axis=0)
        sums = weights.sum(axis=0)
        of_lists = np.where(asked, weights, 0.0).sum(axis=1)
        other = asked & (lists.shown != target) & (lists.propensities == 1)
        return cls(
            agreeing=float((weights[asked] > 0).sum() / places),
            unsupported=float(max(0.0, 1 - of_lists.sum() / places)),
            error=float(of_lists.std() * len(of_lists) ** 0.5 / places),
            surely_not=float(other.sum() / places),
            unseen=float((asked & ~np.isin(target, lists.shown)).sum() / places),
            effective=np.divide(sums**2, squares, out=np.zeros(len(sums)), where=squares > 0),
            largest=float(weights.max(initial=0.0)),
            clipped=0 if clip is None else int((weights > clip).sum()),
        )

    @property
    def thinnest(self) -> int:
        """The place, from 0, of which least is known."""
        return int(self.effective.argmin())

    def warnings(self, lists: int) -> list[str]:
        """What to beware of, in sentences."""
        told = []
        place, effective = self.thinnest, float(self.effective.min())
        if effective < min(lists / 2, max(_FEW, lists / 100)):
            told.append(
                f"support is thin: at place {place + 1} the value rests on an effective sample of "
                f"{effective:.1f} of {lists:,} lists, and no interval can be trusted: explore "
                "more, log longer, clip weights, or value a policy closer to the logged one"
            )
        if max(self.unsupported - 2 * self.error, self.surely_not) > _MUCH:
            told.append(
                f"about {self.unsupported:.0%} of the target's items had no chance to be shown "
                f"where it has them ({self.surely_not:.0%} for sure): IPS counts them as worth "
                "nothing, SNIPS as the others, DR as its model has it"
            )
        if self.unseen > _MUCH:
            told.append(
                f"{self.unseen:.0%} of the target's places hold items that the log never shows: "
                "nothing at all is known of these"
            )
        if self.clipped:
            told.append(f"{self.clipped:,} weights were cut, which biases the values")
        return told
