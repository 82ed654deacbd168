"""Options of what a bundle answers with."""

from __future__ import annotations

from pydantic import Field

from feature_store.options import Options


class FallbackConfig(Options):
    """What answers where nothing is known of a history: what is popular lately."""

    by: str | None = Field(
        None,
        description="Column of users, such as their country: each of its values, a segment, gets "
        "a list of its own. By default one list is for everybody.",
    )
    least: int = Field(
        100,
        ge=1,
        description="Events that a segment needs, in the days that count, for its own list; in it "
        "everybody's events weigh as much as so many.",
    )
