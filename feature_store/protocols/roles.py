"""Roles of events, and what is known where those of one are asked for.

Roles are train, validation and test. Held-out users also have inputs, `validation_input` and
`test_input`: events that are shown when something is asked for them, and not trained on. What
comes after the test is `later`, and known to nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Ibis is imported where it is used: every config has a protocol
    import ibis.expr.types as ir

TRAIN, VALIDATION, TEST = "train", "validation", "test"
VALIDATION_INPUT, TEST_INPUT = "validation_input", "test_input"
LATER = "later"
LEARNT = (TRAIN, VALIDATION, VALIDATION_INPUT)  # all that may be trained on before the test
SHOWN = {  # what is known of a user when something of this role is asked for
    VALIDATION: (TRAIN, VALIDATION_INPUT),
    TEST: (*LEARNT, TEST_INPUT),
}


def cases(*branches: tuple[Any, str], else_: Any) -> ir.StringColumn:
    """The role of the first branch whose condition holds."""
    import ibis

    return ibis.cases(*branches, else_=else_)
