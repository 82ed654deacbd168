"""Pointwise metrics: hand-computed values, definitions at the edges, and refusals."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from feature_store.errors import ConfigError, DataError
from recsys.evaluation.pointwise import (
    auc,
    auc_by_group,
    calibration_ratio,
    expected_calibration_error,
    gauc,
    log_loss,
    normalised_entropy,
    rela_impr,
)

# pairs of a positive and a negative: 0.8 beats both, 0.4 beats 0.1 and ties with 0.4
LABELS = [1, 0, 1, 0]
SCORES = [0.8, 0.4, 0.4, 0.1]


def test_auc_by_hand_counts_a_tie_as_half() -> None:
    assert auc(LABELS, SCORES) == 3.5 / 4


def test_auc_does_not_depend_on_the_order_of_rows_or_the_scale_of_scores() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(4)
    labels, scores = np.array(LABELS)[order], 1e6 * np.array(SCORES)[order] - 7
    assert auc(labels, scores) == 3.5 / 4
    assert auc(labels, -scores) == 0.5 / 4


def test_auc_of_one_class_is_unknown() -> None:
    assert np.isnan(auc([1, 1], [0.2, 0.3]))
    assert np.isnan(auc([0], [0.2]))


def test_gauc_weighs_users_by_their_impressions_and_skips_those_of_one_class() -> None:
    # a: AUC 1 over 2 rows; b: AUC 1/2 over 3 rows; c and d: one class
    users = ["b", "a", "c", "b", "a", "b", "c", "d"]
    labels = [1, 1, 1, 0, 0, 0, 1, 0]
    scores = [0.5, 0.9, 0.1, 0.7, 0.2, 0.3, 0.9, 0.4]
    names, areas, rows = auc_by_group(labels, scores, users)
    assert names.tolist() == ["b", "a", "c", "d"] and rows.tolist() == [3, 2, 2, 1]
    assert areas == pytest.approx([1 / 2, 1, np.nan, np.nan], nan_ok=True)
    assert gauc(labels, scores, users) == pytest.approx((3 * 1 / 2 + 2 * 1) / 5)


def test_gauc_of_a_positive_and_a_negative_each_is_the_share_of_pairs_won() -> None:
    users = np.repeat(np.arange(4), 2)
    scores = [0.9, 0.1, 0.2, 0.7, 0.5, 0.5, 0.6, 0.3]
    assert gauc([1, 0] * 4, scores, users) == (1 + 0 + 1 / 2 + 1) / 4


def test_gauc_where_no_user_has_both_classes_is_unknown() -> None:
    assert np.isnan(gauc([1, 1, 0], [0.1, 0.2, 0.3], [1, 1, 2]))


def test_equal_scores_of_two_users_are_no_tie() -> None:
    # user 1 ends and user 2 begins with the score 0.5
    assert gauc([0, 1, 1, 0], [0.1, 0.5, 0.5, 0.9], [1, 1, 2, 2]) == (1 + 0) / 2


def test_log_loss_by_hand_in_nats() -> None:
    assert log_loss([1, 0], [0.25, 0.25]) == pytest.approx(-(log(0.25) + log(0.75)) / 2)


def test_certainty_that_is_wrong_costs_36_nats_and_one_that_is_right_nothing() -> None:
    assert log_loss([1], [0.0]) == pytest.approx(52 * log(2))
    assert log_loss([0], [1.0]) == pytest.approx(52 * log(2))
    assert log_loss([1, 0], [1.0, 0.0]) == pytest.approx(0, abs=1e-15)


def test_normalised_entropy_is_1_for_the_base_rate_and_less_for_knowing_more() -> None:
    labels = [1, 0, 0, 0]
    assert normalised_entropy(labels, [0.25] * 4) == pytest.approx(1)
    loss = -(log(0.7) + 3 * log(0.9)) / 4
    entropy = -(0.25 * log(0.25) + 0.75 * log(0.75))
    assert normalised_entropy(labels, [0.7, 0.1, 0.1, 0.1]) == pytest.approx(loss / entropy)


def test_normalised_entropy_of_one_class_is_unknown() -> None:
    assert np.isnan(normalised_entropy([1, 1], [0.9, 0.9]))
    assert np.isnan(normalised_entropy([0], [0.1]))


def test_calibration_ratio_is_predicted_over_observed() -> None:
    assert calibration_ratio([1, 0, 0, 1], [0.9, 0.6, 0.5, 1.0]) == pytest.approx(3 / 2)
    assert np.isnan(calibration_ratio([0, 0], [0.1, 0.2]))


def test_calibration_error_of_bins_of_equal_width_by_hand() -> None:
    # [0, 0.5): mean 0.2 against 1/2; [0.5, 1]: 0.75 against 1/2, both its ends included
    labels, probabilities = [0, 1, 1, 0], [0.1, 0.3, 0.5, 1.0]
    value = expected_calibration_error(labels, probabilities, bins=2)
    assert value == pytest.approx(0.5 * 0.3 + 0.5 * 0.25)
    # one bin leaves the difference of means: 1.9 predicted, 2 seen
    assert expected_calibration_error(labels, probabilities, bins=1) == pytest.approx(0.1 / 4)


def test_calibration_error_of_bins_of_equal_mass_by_hand() -> None:
    # all four are in one bin of equal width; halves have means 0.015 and 0.035
    labels, probabilities = [1, 0, 0, 0], [0.04, 0.02, 0.01, 0.03]
    value = expected_calibration_error(labels, probabilities, bins=2, equal_mass=True)
    assert value == pytest.approx(0.5 * 0.015 + 0.5 * (0.5 - 0.035))
    assert expected_calibration_error(labels, probabilities, bins=2) == pytest.approx(0.25 - 0.025)


def test_equal_predictions_stay_in_one_bin_of_equal_mass() -> None:
    # a calibrated constant has no error, however its labels are ordered
    for labels in ([1, 1, 0, 0], [0, 1, 0, 1]):
        assert expected_calibration_error(labels, [0.5] * 4, bins=2, equal_mass=True) == 0


def test_calibration_error_vanishes_for_predictions_that_are_the_truth() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(100_000)
    labels = rng.random(100_000) < probabilities
    for equal_mass in (False, True):
        true = expected_calibration_error(labels, probabilities, equal_mass=equal_mass)
        off = expected_calibration_error(labels, probabilities**2, equal_mass=equal_mass)
        assert true < 0.01 < 0.1 < off


def test_calibration_error_needs_a_bin() -> None:
    with pytest.raises(ConfigError, match="bins must be 1 or more, not 0"):
        expected_calibration_error([1], [1.0], bins=0)


def test_rela_impr_gives_the_published_figures() -> None:
    # Zhou et al., 2018, table 3: base 0.8624, DIN 0.8818; LR 0.7742
    assert rela_impr(0.8818, 0.8624) == pytest.approx(5.35, abs=0.005)
    assert rela_impr(0.7742, 0.8624) == pytest.approx(-24.34, abs=0.005)
    assert np.isnan(rela_impr(0.7, 0.5))


POINTWISE = [auc, log_loss, normalised_entropy, calibration_ratio, expected_calibration_error]


@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], "labels: row 2 holds 2; labels are 0 or 1"),
        ([0, np.nan], [0.1, 0.2], "labels: row 1 holds nan"),
        ([0, 1], [0.1, np.nan], "row 1 holds nan; a number is needed"),
        ([0, 1], [0.1, "high"], "a number is needed in each row"),
        ([0, 1], [0.1, 0.2, 0.3], "different lengths: 2 labels, 3"),
        ([], [], "at least one row"),
        ([[0, 1]], [[0.1, 0.2]], "one dimension"),
    ],
)
def test_rows_that_make_no_sense_are_refused(
    metric: object, labels: list, values: list, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        metric(labels, values)


@pytest.mark.parametrize("metric", POINTWISE[1:])
@pytest.mark.parametrize("wrong", [1.01, -0.5, np.inf])
def test_logits_are_refused_where_probabilities_are_needed(metric: object, wrong: float) -> None:
    with pytest.raises(DataError, match=rf"probabilities: row 1 holds {wrong}.*sigmoid"):
        metric([0, 1], [0.5, wrong])


def test_groups_are_checked_too() -> None:
    with pytest.raises(DataError, match="2 labels, 2 scores, 1 groups"):
        gauc([0, 1], [0.1, 0.2], [1])
    with pytest.raises(DataError, match="groups: row 1 is missing"):
        gauc([0, 1], [0.1, 0.2], ["a", None])
