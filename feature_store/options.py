"""What every section of a config has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options that cannot be changed, know no others, and hold numbers that are finite.

    A comparison with nan is false, so that a bound alone would let it through.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
