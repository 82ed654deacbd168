"""How many users it takes to see a difference."""

from __future__ import annotations

import math

from scipy.stats import norm


def users_per_arm(
    difference: float, deviation: float, *, level: float = 0.05, power: float = 0.8
) -> int | None:
    """Users of each of two equal arms for which a two-sided test at `level` finds a true
    `difference` of means with probability `power`; None where there is no difference to find.

    `2 (z(1 - level / 2) + z(power)) ** 2 (deviation / difference) ** 2`, rounded up; that a test
    finds the wrong side is neglected. Source: Cohen, Statistical Power Analysis for the Behavioral
    Sciences, 1988, chapter 2.

    Args:
        deviation: standard deviation of a user's value, in either arm.
    """
    if difference == 0 or not math.isfinite(difference):
        return None
    quantiles = norm.ppf(1 - level / 2) + norm.ppf(power)
    return max(2, math.ceil(2 * (quantiles * deviation / difference) ** 2))
