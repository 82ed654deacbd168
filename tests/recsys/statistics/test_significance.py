"""Paired tests: exact where that can be enumerated, at their level where nothing differs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.statistics import significance
from recsys.statistics.significance import (
    bootstrap_test,
    holm,
    randomisation_test,
    replicates_test,
)

RANDOM = np.random.default_rng(1)
TESTS = pytest.mark.parametrize("test", [randomisation_test, bootstrap_test])
Test = Callable[..., np.ndarray]


@pytest.mark.parametrize("step", [None, 0.1], ids=["no ties", "ties"])
def test_randomisation_agrees_with_all_sign_flips(step: float | None) -> None:
    a, b = RANDOM.random((2, 10, 3)) + np.array([0.0, 0.15, 0.3]) * np.array([[[1]], [[0]]])
    if step is not None:
        a, b = (a / step).round() * step, (b / step).round() * step
    difference = a - b
    flips = np.array(list(itertools.product([-1, 1], repeat=10)))
    sums = np.abs(flips @ difference)
    exact = (sums >= np.abs(difference.sum(axis=0)) - 1e-9).mean(axis=0)
    p = randomisation_test(a, b, permutations=40_000)
    np.testing.assert_allclose(p, exact, atol=5 * np.sqrt(0.25 / 40_000))
    scipy = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", axis=0
    )
    np.testing.assert_allclose(p, scipy.pvalue, atol=5 * np.sqrt(0.25 / 40_000))


def test_bootstrap_agrees_with_its_definition() -> None:
    a, b = RANDOM.random((2, 40))
    difference = a - b
    random = np.random.default_rng(9)
    draws = difference[random.integers(0, 40, (500, 40))].mean(axis=1)
    extreme = (np.abs(draws - difference.mean()) >= abs(difference.mean())).sum()
    p = bootstrap_test(a[:, None], b[:, None], replicates=500, seed=9)
    assert p.tolist() == [(1 + extreme) / 501]


@TESTS
def test_p_values_are_uniform_where_the_runs_are_equally_good(test: Test) -> None:
    """2000 pairs of runs that differ by chance alone, one pair a column."""
    a, b = np.random.default_rng(4).gamma(1.0, size=(2, 80, 2000))
    p = test(a, b, **{"permutations" if test is randomisation_test else "replicates": 999})
    assert stats.kstest(p, "uniform").pvalue > 0.001
    for level in (0.01, 0.05, 0.2):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 2000)


def test_randomisation_keeps_its_level_where_values_are_few_and_tied() -> None:
    """Hits of 12 users: a test by normal approximation would not."""
    a, b = np.random.default_rng(4).integers(0, 2, size=(2, 12, 2000)).astype(float)
    p = randomisation_test(a, b, permutations=999)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() < level + 4 * np.sqrt(level * (1 - level) / 2000)


@TESTS
def test_a_planted_difference_is_found_whichever_run_is_better(test: Test) -> None:
    a = np.random.default_rng(0).random((400, 2))
    b = a + np.array([0.02, -0.02]) + 0.05 * np.random.default_rng(1).standard_normal(a.shape)
    assert (test(a, b) < 0.001).all()
    np.testing.assert_allclose(test(a, b), test(b, a))
    paired_less = test(a, np.random.default_rng(1).permutation(b))
    assert (paired_less > 0.05).all()  # without its pairs the difference drowns


@TESTS
def test_equal_runs_give_1_and_the_least_p_is_one_of_all_draws(test: Test) -> None:
    a = np.repeat([[0.1, 0.3]], 60, axis=0) * 3  # values that sums round
    assert test(a, a).tolist() == [1, 1]
    assert test(a, a - 1).tolist() == pytest.approx([1 / 10_001] * 2)


@TESTS
def test_users_without_the_value_in_either_run_are_left_out_of_that_figure(test: Test) -> None:
    a, b = RANDOM.random((2, 60, 3))
    a[:20, 0], b[10:30, 0], a[:, 2] = np.nan, np.nan, np.nan
    p = test(a, b)
    assert p[0] == pytest.approx(test(a[30:, :1], b[30:, :1])[0], abs=0.03)
    assert p[1] == pytest.approx(test(a[:, 1:2], b[:, 1:2])[0])
    assert np.isnan(p[2])


@TESTS
def test_the_seed_alone_decides(test: Test) -> None:
    a, b = RANDOM.random((2, 50, 2))
    np.testing.assert_array_equal(test(a, b, seed=1), test(a, b, seed=1))
    assert (test(a, b, seed=1) != test(a, b, seed=2)).any()


def test_chunks_of_draws_make_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = RANDOM.random((2, 45, 2))
    once = randomisation_test(a, b)
    monkeypatch.setattr(significance, "_CHUNK", 45 * 7)
    np.testing.assert_allclose(randomisation_test(a, b), once, atol=0.03)


def test_draws_are_held_against_the_difference_by_hand() -> None:
    """Of draws .3, .7 and .1 one is as far from a difference of .3 as that is from 0; of the second
    figure all, of the third there are none."""
    draws = np.array([[0.3, 0.0, np.nan], [0.7, 0.0, np.nan], [0.1, 0.0, np.nan], [np.nan] * 3])
    p = replicates_test(np.array([0.3, 0.0, 0.1]), draws)
    np.testing.assert_allclose(p, [2 / 4, 1, np.nan])


def test_shapes_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 1\), \(4, 1\)"):
        randomisation_test(np.zeros((3, 1)), np.zeros((4, 1)))


def test_holm_by_hand() -> None:
    """0.01 x 4; 0.03 x 3; 0.04 x 2 lies below 0.09, which it takes; 0.5 x 1."""
    p = np.array([[0.04, 0.01], [0.03, 0.5]])
    np.testing.assert_allclose(holm(p), [[0.09, 0.04], [0.09, 0.5]])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]


def test_holm_does_not_count_tests_that_were_not_made() -> None:
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.03])), [0.04, np.nan, 0.04])
    assert holm(np.array([])).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted >= p).all() and (adjusted <= np.minimum(p * len(p), 1)).all()
