"""Options of `recsys daily`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from feature_store.options import Options


class DailyConfig(Options):
    """How a day is learned, and what it takes to go into service."""

    service: Path | None = Field(
        None, description="The serving folder; by default `service` in the run's folder."
    )
    window_days: float = Field(
        3, gt=0, description="Days before the test that a warm start trains on; earlier is history."
    )
    epochs: int = Field(2, ge=1, description="Passes of a warm start; the first day has trainer's.")
    metric: str | None = Field(
        None, description="The figure of the gate; by default the one that chooses epochs."
    )
    max_fall: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Nothing is published where the metric falls by more than this share of what "
        "the bundle in service has...",
    )
    confidence: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        description="... and it has to be so sure that it does not, by a paired bootstrap over "
        "users: 0.5 goes by the figures alone.",
    )
    users: str | None = Field(
        None, description="A store of users' newest histories that takes the day's events, too."
    )
    keep: int = Field(3, ge=1, description="Newest versions in service that stay.")
    keep_days: int = Field(
        7,
        ge=1,
        description="Runs of so many newest days stay, with those that versions in service, and "
        "runs that stay, came from; older ones are removed.",
    )
    stale: bool = Field(
        False,
        description="Measure the first bundle on every day, too, which is never renewed: what "
        "learning day by day is worth.",
    )
