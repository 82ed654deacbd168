"""Predictions of several rankers over the same rows and lists: what their figures are paired by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feature_store.errors import DataError
from recsys.evaluation.predictions import FIGURES, Predictions
from recsys.report.contenders import Contender
from recsys.statistics.bootstrap import around, percentiles
from recsys.statistics.significance import replicates_test


@dataclass(frozen=True)
class Side:
    """A ranker's figures over resampled users [R, M], whose draws are those of the other rankers;
    and by the name of a figure that is a ratio of sums over users, what each user adds to it [U].
    """

    replicates: np.ndarray
    sums: dict[str, np.ndarray]

    def minus(self, first: Side, name: str, difference: float) -> tuple[float, float]:
        """The paired 95 % interval of a figure's difference from another ranker's; that of ECE is
        laid around the difference, as ECE's own is around the figure."""
        place = FIGURES.index(name)
        draws = (self.replicates - first.replicates)[:, [place]]
        if name == "ECE":
            low, high = around(np.array([difference]), draws)
        else:
            low, high = percentiles(draws)
        return float(low[0]), float(high[0])

    def test(self, first: Side, name: str, difference: float) -> float:
        """The p-value of a figure's difference by those draws; of ECE there is none, whose draws do
        not lie around it."""
        if name == "ECE":
            return float("nan")
        place = FIGURES.index(name)
        draws = (self.replicates - first.replicates)[:, [place]]
        return float(replicates_test(np.array([difference]), draws)[0])


def sides_of(contenders: Sequence[Contender], *, replicates: int, seed: int) -> list[Side]:
    """Rankers to be held against each other.

    Raises DataError for rankers that were measured on different rows.
    """
    tables = [contender.per_row() for contender in contenders]
    rows = [table.drop_columns(["probability"]) for table in tables]
    for contender, other in zip(contenders[1:], rows[1:], strict=True):
        if not other.equals(rows[0]):
            raise DataError(
                f"{contenders[0].label} and {contender.label} were measured on different rows: "
                "name the same task of both"
            )
    predictions = [Predictions.from_table(table) for table in tables]
    return [
        Side(
            replicates=of.replicates(replicates, seed),
            sums={name: above / below.mean() for name, (above, below) in of.by_user().items()},
        )
        for of in predictions
    ]


def paired_lists(contenders: Sequence[Contender], names: list[str]) -> list[np.ndarray]:
    """Figures of the lists that rankers ordered anew [L, M], the same lists in the same order.

    Raises DataError for rankers that were given different lists.
    """
    tables = [contender.per_list(names).sort_index() for contender in contenders]
    for contender, table in zip(contenders[1:], tables[1:], strict=True):
        if not table.index.equals(tables[0].index):
            raise DataError(f"{contenders[0].label} and {contender.label} ordered different lists")
    return [table.to_numpy(np.float64) for table in tables]
