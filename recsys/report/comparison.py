"""Runs side by side: differences against the first, their intervals, and paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from feature_store.errors import DataError
from recsys.evaluation import shown_lists
from recsys.evaluation.aggregates import RATIOS
from recsys.evaluation.options import EvaluationConfig
from recsys.figure import FIRST, Figure, cut_offs, first_cut
from recsys.report.contenders import Contender, open_contenders
from recsys.report.paired_predictions import paired_lists, sides_of
from recsys.statistics.bootstrap import mean_intervals, ratio_intervals
from recsys.statistics.significance import bootstrap_test, holm, randomisation_test

Test = Literal["randomisation", "bootstrap"]
TESTS: dict[str, Callable[..., np.ndarray]] = {
    "randomisation": randomisation_test,
    "bootstrap": bootstrap_test,
}

_FIGURE = ["value", "low", "high"]
_DIFFERENCE = ["difference", "difference_low", "difference_high"]


@dataclass(frozen=True)
class Comparison:
    """Figures of several runs under one protocol.

    Attributes:
        protocol, fingerprint, candidates: what all runs share; rankers have no candidates.
        runs: what was compared, retrievers or rankers; differences are taken against the first.
        users: how many users all runs have; differences and tests are over these.
        test: which test gave the p-values.
        notes: what a reader must know besides.
        frame: one row a `metric` and `run`: `value` with its 95 % interval `low` to `high`; its
            `difference` against the first run, with the paired 95 % interval `difference_low` to
            `difference_high`; `p` of the test, and `p_holm`, corrected over all p in the frame.
            Of rankers' figures that are no sums over users, such as AUC, it is by the draws of
            their intervals, whatever the test. NaN: there is none, as of ECE.
    """

    protocol: str
    fingerprint: str
    candidates: int | None
    runs: tuple[Contender, ...]
    users: int
    test: Test
    notes: tuple[str, ...]
    frame: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; None where the frame has NaN."""
        rows = self.frame.astype(object).where(self.frame.notna(), None)
        return {
            "protocol": self.protocol,
            "protocol_fingerprint": self.fingerprint,
            "candidates": self.candidates,
            "users": self.users,
            "test": self.test,
            "runs": [
                {"run": run.label, "folder": str(run.folder), run.kind: run.model}
                for run in self.runs
            ],
            "notes": list(self.notes),
            "figures": rows.to_dict("records"),
        }


def compare(
    runs: Sequence[str | Path],
    metrics: Sequence[str] = (),
    *,
    test: Test = "randomisation",
    seed: int = 0,
) -> Comparison:
    """Hold runs against the first of them, user by user: retrievers, or rankers.

    Args:
        runs: folders of evaluated runs, each standing for its model, or FOLDER:MODEL for another
            one of a run, such as `runs/ml:ease`, or the task `runs/shop:din_purchase`.
        metrics: names such as NDCG@10, or NDCG for all its cut-offs; by default those that people
            look at first, of rankers all.
        test: which paired test gives the p-values.
        seed: of resampling users and of the test.

    Raises:
        DataError: for fewer than two runs, unknown ones, runs that were not evaluated, runs whose
            protocols differ, retrievers beside rankers, and metrics that not all runs have.
    """
    contenders = open_contenders([str(run) for run in runs])
    compared = _rankers if contenders[0].ranks_rows else _retrievers
    rows, users, notes = compared(contenders, metrics, test, seed)
    frame = pd.concat(rows).loc[list(rows[0].index)].rename_axis("metric").reset_index()
    frame["p_holm"] = holm(frame["p"].to_numpy())
    results = contenders[0].run.results
    return Comparison(
        protocol=results["protocol"],
        fingerprint=results["protocol_fingerprint"],
        candidates=results.get("candidates"),
        runs=contenders,
        users=users,
        test=test,
        notes=notes,
        frame=frame,
    )


_Compared = tuple[list[pd.DataFrame], int, tuple[str, ...]]
"""Rows of the frame by run, by name; the users of all runs; notes."""


def _rankers(
    contenders: Sequence[Contender], metrics: Sequence[str], test: Test, seed: int
) -> _Compared:
    names = _choose(metrics, contenders)
    of_lists = [name for name in names if name in shown_lists.FIGURES]
    of_rows = [name for name in names if name not in of_lists]
    lists = paired_lists(contenders, of_lists) if of_lists else [np.zeros((0, 0))] * len(contenders)
    replicates = min(_replicates(contender) for contender in contenders)
    sides = sides_of(contenders, replicates=replicates, seed=seed) if of_rows else []
    rows_of_runs: list[pd.DataFrame] = []
    for place, contender in enumerate(contenders):
        rows = _as_measured(contender, names)
        if place:
            rows["difference"] = rows["value"] - rows_of_runs[0]["value"]
            if of_lists:
                ends = mean_intervals(lists[place] - lists[0], replicates=replicates, seed=seed)
                rows.loc[of_lists, _DIFFERENCE[1:]] = np.stack(ends, axis=1)
                rows.loc[of_lists, "p"] = TESTS[test](lists[place], lists[0], seed=seed)
            for name in of_rows:
                side, first = sides[place], sides[0]
                difference = float(rows["difference"][name])
                rows.loc[name, _DIFFERENCE[1:]] = side.minus(first, name, difference)
                if name in side.sums:
                    both = side.sums[name][:, None], first.sums[name][:, None]
                    rows.loc[name, "p"] = TESTS[test](*both, seed=seed)[0]
                else:  # no sum over users, whose values could be turned round
                    rows.loc[name, "p"] = side.test(first, name, difference)
        rows_of_runs.append(rows)
    users = [c.summary["users"] for c in contenders if "users" in c.summary]
    return rows_of_runs, users[0] if users else 0, ()


def _replicates(contender: Contender) -> int:
    of_run = contender.run.config.get("evaluation", {}).get("replicates")
    return int(of_run or EvaluationConfig().replicates)


def _retrievers(
    contenders: Sequence[Contender], metrics: Sequence[str], test: Test, seed: int
) -> _Compared:
    names = _choose(metrics, contenders)
    paired = [name for name in names if all(_needed([name]) <= set(c.columns) for c in contenders)]
    tables = [contender.per_user(sorted(_needed(paired))) for contender in contenders]
    users = tables[0].index
    for table in tables[1:]:
        users = users[users.isin(table.index)]
    if not len(users):
        raise DataError("the runs have no user in common: there is nothing to pair")
    same_users = all(len(table) == len(users) for table in tables)
    sums = [_sums(table.loc[users], paired) for table in tables]
    rows_of_runs: list[pd.DataFrame] = []
    for contender, (above, below) in zip(contenders, sums, strict=True):
        rows = _as_measured(contender, names)
        written = contender.summary["metrics"] if same_users else ()
        anew = [name for name in paired if name not in written]
        columns = [paired.index(name) for name in anew]
        rows.loc[anew, _FIGURE] = _ratios(above[:, columns], below[:, columns], seed)
        if rows_of_runs:
            if same_users:
                rows["difference"] = rows["value"] - rows_of_runs[0]["value"]
            rows.loc[paired, _DIFFERENCE] = _ratios(above - sums[0][0], below, seed)
            rows.loc[paired, "p"] = TESTS[test](above, sums[0][0], seed=seed)
        rows_of_runs.append(rows)
    notes = () if same_users else _notes(contenders, names, paired, len(users))
    return rows_of_runs, len(users), notes


def _choose(asked: Sequence[str], contenders: Sequence[Contender]) -> list[str]:
    """Names of figures that all contenders have."""
    shared = [name for name in contenders[0].figures if all(name in c.figures for c in contenders)]
    measured = [Figure.parse(name) for name in shared]
    cuts = cut_offs(figure for figure in measured if figure.slice is None)
    if not (shared if contenders[0].ranks_rows else cuts):
        raise DataError("the runs have no metric in common: evaluate them at the same cut-offs")
    if not asked:
        first = [Figure(name, first_cut(cuts)) for name in FIRST] if cuts else measured
        asked = [str(figure) for figure in first if figure in measured]
    chosen: list[str] = []
    for text in asked:
        at_all_cuts = [str(Figure(text, k)) for k in cuts if Figure(text, k) in measured]
        if text not in shared and not at_all_cuts:
            names = ", ".join(dict.fromkeys(figure.name for figure in measured))
            at = f" at {', '.join(map(str, cuts))}; name one as NDCG@{cuts[-1]}" if cuts else ""
            raise DataError(f"no metric {text!r} in all of these runs: they have {names}{at}")
        chosen += [text] if text in shared else at_all_cuts
    return list(dict.fromkeys(chosen))


def _columns(name: str) -> tuple[str, str | None]:
    """The values per user behind a figure, if it has any, and those that they are shares of; None:
    of 1 a user."""
    figure = Figure.parse(name)
    above, below = RATIOS.get(figure.name, (figure.name, None))
    return str(figure._replace(name=above)), below


def _needed(names: list[str]) -> set[str]:
    return {column for name in names for column in _columns(name) if column is not None}


def _sums(users: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators [U, M]: each figure is the ratio of their sums over users.

    A mean is a ratio to 1 a user, GMV capture one to the money that the user spent. Denominators
    are the same in all runs, once they are 1 on average over the users that all have; so
    differences of figures are ratios too, and a test of GMV capture is one of its numerators.
    """
    above = users[[_columns(name)[0] for name in names]].to_numpy(np.float64, copy=True)
    below = np.ones_like(above)
    for place, name in enumerate(names):
        shares_of = _columns(name)[1]
        if shares_of is not None and (mean := users[shares_of].mean()) > 0:
            below[:, place] = users[shares_of] / mean
            above[:, place] /= mean
    return above, below


def _ratios(above: np.ndarray, below: np.ndarray, seed: int) -> np.ndarray:
    """Ratios of sums [M, 3] with the ends of their intervals; users with NaN are left out."""
    total = np.where(np.isnan(above), 0.0, below).sum(axis=0)
    value = np.divide(
        np.nansum(above, axis=0), total, out=np.full(len(total), np.nan), where=total != 0
    )
    return np.stack([value, *ratio_intervals(above, below, seed=seed)], axis=1)


def _as_measured(contender: Contender, names: list[str]) -> pd.DataFrame:
    """Rows of the frame, by name, with the figures that the run has written."""
    rows = pd.DataFrame(np.nan, index=names, columns=[*_FIGURE, *_DIFFERENCE, "p", "p_holm"])
    for name in names:
        if name in contender.summary["metrics"]:
            value, bounds = contender.summary["metrics"][name], contender.summary["ci95"][name]
            rows.loc[name, _FIGURE] = np.array([value, *bounds], dtype=np.float64)
    rows.insert(0, "run", contender.label)
    return rows


def _notes(
    contenders: Sequence[Contender], names: list[str], paired: list[str], users: int
) -> tuple[str, ...]:
    """Said when the runs have not the same users."""
    counts = ", ".join(f"{c.label} {c.summary['users']:,}" for c in contenders)
    notes = [f"figures are over the {users:,} users that all runs have (of {counts})"]
    others = [name for name in names if name not in paired]
    if others:
        notes.append(f"but {', '.join(others)} over each run's own users: no difference is shown")
    return tuple(notes)
