"""The gate: whether what was learned of a day may follow the bundle in service.

Both answer the same requests of the next day, and every user is a pair of figures. A new model
passes where its figure is surely no further below that of the old one than is stated: a test of
non-inferiority, whose margin is a share of the old figure. Source: Wellek, Testing Statistical
Hypotheses of Equivalence and Noninferiority, 2010; by the bootstrap of Efron & Tibshirani, 1993.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

from feature_store.errors import DataError
from recsys.daily.options import DailyConfig
from recsys.statistics.bootstrap import mean_replicates, percentiles
from recsys.statistics.significance import randomisation_test

_REPLICATES = 10_000


class Gate(BaseModel):
    """What came of it: means over `users`, their difference with its 95 % interval and the p of the
    paired randomisation test, the fall that is allowed, and how sure it is that it fell no further.
    """

    model_config = ConfigDict(frozen=True)
    metric: str
    users: int
    fresh: float
    served: float
    difference: float
    low: float
    high: float
    p: float
    allowed: float
    sure: float
    passed: bool

    @property
    def reason(self) -> str:
        """The outcome, as people read it."""
        told = (
            f"{self.metric} {self.fresh:.4f}, in service {self.served:.4f}: {self.difference:+.4f} "
            f"(95 % {self.low:+.4f} to {self.high:+.4f}, p = {self.p:.3f}) over {self.users:,} "
            f"users; a fall of {self.allowed:.4f} is allowed, and "
        )
        if self.difference < -self.allowed:
            return told + "it falls by more"
        return told + f"with {self.sure:.1%} it does not fall by more"


def decide(metric: str, fresh: np.ndarray, served: np.ndarray, options: DailyConfig) -> Gate:
    """Hold the figures [U] of the new model against those of the one in service, user by user; a
    user with NaN in either is left out.

    Raises DataError where no user is left.
    """
    both = ~(np.isnan(fresh) | np.isnan(served))
    new, old = (values[both].astype(np.float64) for values in (fresh, served))
    if not len(new):
        raise DataError("nobody's test can be asked of both models: no user has both figures")
    difference = (new - old)[:, None]
    draws = mean_replicates(difference, replicates=_REPLICATES)
    (low,), (high,) = percentiles(draws)
    allowed = options.max_fall * float(old.mean())
    tie = 1e-12  # of sums of figures, by rounding
    sure = float((draws >= -allowed - tie).mean())
    fell = float(difference.mean())
    p = float(randomisation_test(new[:, None], old[:, None])[0])
    return Gate(
        metric=metric,
        users=len(new),
        fresh=float(new.mean()),
        served=float(old.mean()),
        difference=fell,
        low=float(low),
        high=float(high),
        p=1.0 if math.isnan(p) else p,
        allowed=allowed,
        sure=sure,
        passed=sure >= options.confidence and fell >= -allowed - tie,
    )
