"""Metrics of predictions one row at a time: is the click seen as likely as it was?

Legend: n rows (impressions), G groups (users). `labels` [n] are 0 or 1, `scores` [n] any numbers
that rank, `probabilities` [n] lie between 0 and 1. All figures are floats computed in float64.
Every function raises DataError for labels other than 0 and 1, missing (NaN) or impossible
values, arrays of different lengths and empty ones, naming the array and its first bad row.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from feature_store.errors import ConfigError, DataError

# how close to certain a probability may count as in `log_loss`
_EPSILON = float(np.finfo(np.float64).eps)


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > that of a negative), a tie counts half.

    NaN where there is only one class. Source: Hanley & McNeil, Radiology 1982 (the Wilcoxon
    statistic).
    """
    positive, scores = _labels(labels), _numbers("scores", scores)
    _same_length(labels=positive, scores=scores)
    order = np.argsort(scores)
    return float(_areas_of_rows(positive[order], scores[order], np.zeros(1, np.intp))[0])


def auc_by_group(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`auc` within each group of rows: (groups [G], AUCs [G], rows [G]).

    `groups` [n] are ids of any kind, in any order, given back in that of their first rows. The
    AUC of a group with a single class is NaN.
    """
    positive, scores = _labels(labels), _numbers("scores", scores)
    ids = np.asarray(groups)
    _same_length(labels=positive, scores=scores, groups=ids)
    codes, names = pd.factorize(ids)
    if (codes < 0).any():
        raise DataError(f"groups: row {int((codes < 0).argmax())} is missing; give each row an id")
    order = np.argsort(scores)
    ranks = np.empty(len(scores), np.int64)
    ranks[order] = np.repeat(*runs_of(scores[order]))
    # group, rank and label in one whole number: sorting these moves no rows about
    keys = np.sort((codes.astype(np.int64) * len(scores) + ranks) * 2 + positive)
    rows = np.bincount(codes)
    areas = _areas_of_rows((keys & 1).astype(bool), keys >> 1, np.cumsum(rows) - rows)
    return np.asarray(names), areas, rows


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """GAUC: `sum_u rows_u AUC_u / sum_u rows_u` over users, weighted by their impressions.

    Users whose rows are all of one class have no AUC and are left out of both sums; NaN where
    that leaves nobody. Source: Zhou et al., Deep Interest Network, KDD 2018, equation 10.
    """
    _, areas, rows = auc_by_group(labels, scores, groups)
    judged = ~np.isnan(areas)
    return mean_area(areas[judged], rows[judged])


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of `-log(p)` over positives and `-log(1 - p)` over negatives, in nats.

    p is clipped to [eps, 1 - eps] with eps = 2^-52, so that being wrong and certain costs 36 and
    not infinity. Source: Good, Rational Decisions, 1952.
    """
    return float(losses(*_labelled_probabilities(labels, probabilities)).mean())


def normalised_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Log loss over that of always predicting the rate q of positives, the entropy of q.

    Below 1: better than knowing q alone. NaN where there is only one class, whose entropy is 0.
    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, 2014.
    """
    loss = log_loss(labels, probabilities)
    return over_entropy(loss, float(_labels(labels).mean()))


def calibration_ratio(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Positives predicted over positives seen: `sum p / sum label`; 1 is calibrated on average.

    Above 1: too confident. NaN where there are no positives. Source: He et al., 2014.
    """
    positive, p = _labelled_probabilities(labels, probabilities)
    return ratio(p.sum(), positive.sum())


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10, equal_mass: bool = False
) -> float:
    """ECE: `sum_b n_b / n |mean p in b - rate of positives in b|` over bins b of predictions.

    Bins are of equal width, [0, 1/bins) up to [1 - 1/bins, 1], or of equal mass: each takes its
    share of the rows by rising prediction, where equal predictions follow the first of them.
    Source: Naeini, Cooper & Hauskrecht, AAAI 2015; equal mass: Nixon et al., Measuring
    Calibration in Deep Learning, 2019.

    Raises ConfigError for fewer than one bin.
    """
    if bins < 1:
        raise ConfigError(f"bins must be 1 or more, not {bins}")
    positive, p = _labelled_probabilities(labels, probabilities)
    if equal_mass:
        order = np.argsort(p)
        positive, p = positive[order], p[order]
        # a run of equal predictions goes where its first row belongs
        runs, lengths = runs_of(p)
        bin_of_row = np.repeat(runs * bins // len(p), lengths)
    else:
        bin_of_row = bins_of(p, bins)
    return mean_gap(bin_of_row, p - positive, bins, len(p))


def rela_impr(auc: float, base: float) -> float:
    """RelaImpr, in per cent: `((AUC - 0.5) / (AUC of the base model - 0.5) - 1) * 100`.

    How much of the base model's edge over chance was gained on top. NaN where the base model has
    no edge. Source: Yan et al., ICML 2014, as used by Zhou et al., KDD 2018.
    """
    return ((auc - 0.5) / (base - 0.5) - 1) * 100 if base != 0.5 else np.nan


# The formulas, once for single rows and for rows that count several times: of checked arrays


def areas_of_runs(positives: np.ndarray, negatives: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """AUC of each group [G], from how many positives and negatives each run of equal scores holds.

    Runs lie group by group, the first of each at `starts`, by rising score. Whole numbers, as
    floats too, make it exact.
    """
    up_to = np.cumsum(negatives)
    won_twice = np.add.reduceat(positives * (2 * up_to - negatives), starts)
    of_group = np.add.reduceat(positives, starts)
    won_twice -= 2 * of_group * (up_to[starts] - negatives[starts])  # those of the groups before
    pairs = of_group * np.add.reduceat(negatives, starts)
    return np.divide(won_twice / 2, pairs, out=np.full(len(starts), np.nan), where=pairs > 0)


def mean_area(areas: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the groups' AUCs; NaN where nothing weighs."""
    return ratio((weights * areas).sum(), weights.sum())


def losses(positive: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Log loss of each row [n]."""
    p = np.clip(p, _EPSILON, 1 - _EPSILON)
    return -np.log(np.where(positive, p, 1 - p))


def over_entropy(loss: float, rate: float) -> float:
    """A mean log loss over the entropy of the rate of positives."""
    if not 0 < rate < 1:
        return np.nan
    return ratio(loss, -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


def bins_of(p: np.ndarray, bins: int) -> np.ndarray:
    """Which of the bins of equal width each row's prediction is in [n]."""
    return np.minimum((p * bins).astype(np.intp), bins - 1)


def mean_gap(bin_of_row: np.ndarray, gaps: np.ndarray, bins: int, total: float) -> float:
    """ECE, from the gap of each row [n], prediction minus label, and how many rows count."""
    return float(np.abs(np.bincount(bin_of_row, weights=gaps, minlength=bins)).sum() / total)


def ratio(above: float, below: float) -> float:
    """NaN over nothing."""
    return float(above / below) if below else np.nan


def runs_of(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal values begins, and its length."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return starts, np.diff(starts, append=len(ordered))


def _areas_of_rows(positive: np.ndarray, scores: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """AUC of each group of rows [G]: rows lie group by group, from `starts`, by rising score.

    Two groups have no score in common.
    """
    runs, lengths = runs_of(scores)
    positives = np.add.reduceat(positive, runs, dtype=np.int64)
    return areas_of_runs(positives, lengths - positives, np.searchsorted(runs, starts))


def _labels(values: ArrayLike) -> np.ndarray:
    """Which rows are positive: bool [n]."""
    labels = _one_dimension("labels", values)
    positive = labels == 1
    _refuse("labels", labels, ~(positive | (labels == 0)), "labels are 0 or 1")
    return positive


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Float64 [n] without NaN."""
    array = _one_dimension(name, values)
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: {error}; a number is needed in each row") from error
    _refuse(name, numbers, np.isnan(numbers), "a number is needed in each row")
    return numbers


def _labelled_probabilities(
    labels: ArrayLike, probabilities: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    positive, p = _labels(labels), _numbers("probabilities", probabilities)
    _same_length(labels=positive, probabilities=p)
    out = (p < 0) | (p > 1)
    _refuse("probabilities", p, out, "probabilities lie from 0 to 1 (apply a sigmoid to logits)")
    return positive, p


def _one_dimension(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{name}: shape {array.shape}; expected one dimension and at least one row")
    return array


def _refuse(name: str, values: np.ndarray, bad: np.ndarray, allowed: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{name}: row {row} holds {values[row]}; {allowed}")


def _same_length(**arrays: np.ndarray) -> None:
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise DataError(f"different lengths: {lengths}; each row needs one of each")
