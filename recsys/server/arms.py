"""Users who are answered by one bundle, and users who are answered by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from recsys.policy.arms import arm_of, check_arms
from recsys.server.models import Answer
from recsys.server.recommending import Wanted, recommend
from recsys.server.showing import Showing
from recsys.server.swap import Swap

MAIN = "main"
"""The arm of the bundle that is served; the others have what it leaves."""


class Arms:
    """Bundles by the name of their arm, and the shares of users that they answer, who are the same
    wherever and whenever they ask; somebody without an id is answered by the first.

    Raises ConfigError for shares that are none.
    """

    def __init__(self, swaps: Mapping[str, Swap], shares: Mapping[str, float], salt: str) -> None:
        check_arms(shares)
        self.swaps, self._shares, self._salt = dict(swaps), dict(shares), salt

    def recommend(
        self, wanted: Sequence[Wanted], showing: Showing | None
    ) -> list[Answer | Exception]:
        """An answer for each question, by the bundle of its user's arm."""
        if len(self.swaps) == 1:
            return recommend(self.swaps[MAIN].live, wanted, showing)
        users = [each.question.user for each in wanted]
        texts = [None if user is None else str(user).strip() for user in users]
        arms = arm_of(pa.array(texts, pa.string()), self._shares, self._salt)
        answers: list[Answer | Exception] = [KeyError()] * len(wanted)
        for arm, swap in self.swaps.items():
            places = [place for place, name in enumerate(arms) if name == arm]
            if places:
                asked = [wanted[place] for place in places]
                given = recommend(swap.live, asked, showing, arm)
                for place, answer in zip(places, given, strict=True):
                    answers[place] = answer
        return answers
