"""Curves against values by hand, and planted miscalibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.evaluation.pointwise import auc, expected_calibration_error, log_loss
from recsys.rankers.calibrated import _Curve
from recsys.statistics.calibration import FITS, FLATTEST, Curve, isotonic, temperature


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def test_pools_by_hand() -> None:
    """With the two rows more: rates 1/2, 1, 0, 1, 1/2 of 2, 1, 1, 1, 2 rows; pools 2/4 and 2/3."""
    curve = isotonic(np.array([4.0, 0, 1, 2, 3]), np.array([1.0, 0, 1, 0, 1]))
    assert curve.at == pytest.approx((3 / 4, 11 / 3))
    assert curve.values == pytest.approx((0, np.log(2)))
    between = np.log(2) / (11 / 3 - 3 / 4)
    assert curve.slopes == pytest.approx((FLATTEST, between, FLATTEST))
    asked = np.array([0.75 - 2, 0.75 + 1, 11 / 3 + 1])
    wanted = [-2 * FLATTEST, between, np.log(2) + FLATTEST]
    assert curve(asked) == pytest.approx(wanted)


def test_equal_logits_are_one_pool() -> None:
    curve = isotonic(np.zeros(4), np.array([1.0, 1, 1, 0]))
    assert curve.at == (0,) and curve.values == pytest.approx((np.log(4 / 2),))  # 3 + 1 of 4 + 2


def test_temperature_and_shift_are_found() -> None:
    """Rates at two logits decide both: 1/4 at -3 and 3/4 at 5 is logit * ln 3 / 4 - ln 3 / 4."""
    logits = np.repeat([-3.0, 5.0], 40_000)
    labels = np.tile(np.r_[np.ones(10_000), np.zeros(30_000)], 2)
    labels[40_000:] = 1 - labels[40_000:]
    curve = temperature(logits, labels)
    assert curve.slopes == pytest.approx([np.log(3) / 4] * 2, abs=1e-3)
    assert curve.values == pytest.approx([-np.log(3) / 4], abs=1e-3)


@pytest.mark.parametrize("kind", FITS)
def test_planted_miscalibration_is_mended(kind: str) -> None:
    """Logits three times too large and shifted; the curve of one half mends the other."""
    random = np.random.default_rng(0)
    truth = random.normal(-1, 1.5, 20_000)
    labels = (random.random(20_000) < sigmoid(truth)).astype(float)
    logits = (3 * truth + 2).astype(np.float32)
    curve, held = FITS[kind](logits[::2], labels[::2]), slice(1, None, 2)
    after, labels = curve(logits[held]), labels[held]
    error = [expected_calibration_error(labels, sigmoid(z)) for z in (logits[held], after)]
    assert error[0] > 0.1 and error[1] < 0.02
    assert log_loss(labels, sigmoid(after)) < log_loss(labels, sigmoid(truth[held])) + 0.005
    assert auc(labels, after.astype(np.float32)) == pytest.approx(auc(labels, logits[held]))
    tensor = _Curve(curve)(torch.tensor(logits[held]))
    np.testing.assert_allclose(tensor.numpy(), after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([-2.0, -1, 1, 2], [0.0, 0, 1, 1]),  # separable
        ([-2.0, -1, 1, 2], [1.0, 1, 0, 0]),  # the wrong way round
        ([1.0, 1 + 1e-6, 2], [0.0, 1, 1]),  # hardly apart
        ([0.0, 1], [1.0, 1]),  # of one class
        ([3.0], [0.0]),
    ],
)
def test_a_curve_rises_and_is_never_certain(
    kind: str, logits: list[float], labels: list[float]
) -> None:
    curve = FITS[kind](np.array(logits), np.array(labels))
    found = curve(np.linspace(-5, 5, 201))
    assert np.isfinite(found).all() and (np.diff(found) > 0).all()
    assert np.abs(curve(np.array(logits))).max() < 5


@pytest.mark.parametrize(
    "parts", [((), (), (1.0,)), ((0.0, 0), (0.0, 1), (1.0, 1, 1)), ((0.0,), (0.0,), (1.0, -1))]
)
def test_what_does_not_rise_is_no_curve(parts: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match="a curve"):
        Curve(*parts)
