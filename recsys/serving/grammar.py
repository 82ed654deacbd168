"""Checks of JSON from elsewhere, put together from small ones: a grammar, in the shape of the tree.

A check gets a value and its place in the tree, and raises Refused where it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any, str], None]


class Refused(ValueError):
    """What stands where, and does not belong there."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where.lstrip('.')} {what}")


def a(*kinds: type) -> Check:
    """Of exactly one of these types."""

    def check(value: Any, where: str) -> None:
        if type(value) not in kinds:
            raise Refused(where, f"is {shown(value)}")

    return check


def where_true(test: Callable[[Any], object], wanted: str) -> Check:
    """What passes a test."""

    def check(value: Any, where: str) -> None:
        if not test(value):
            raise Refused(where, f"is {shown(value)}, not {wanted}")

    return check


def one_of(*values: Any) -> Check:
    """One of these values, of their types."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(known) and value == known for known in values):
            raise Refused(where, f"is {shown(value)}")

    return check


def nothing(value: Any, where: str) -> None:
    """What may stand there, but holds nothing."""
    if value:
        raise Refused(where, f"is {shown(value)}, where nothing belongs")


def optional(check: Check) -> Check:
    """None, or what fits."""
    return lambda value, where: None if value is None else check(value, where)


def listed(check: Check) -> Check:
    """A list of what fits."""

    def check_all(values: Any, where: str) -> None:
        a(list)(values, where)
        for place, value in enumerate(values):
            check(value, f"{where}.{place}")

    return check_all


def table(key: Check, check: Check) -> Check:
    """A dict of any number of keys."""

    def check_all(values: Any, where: str) -> None:
        a(dict)(values, where)
        for name, value in values.items():
            key(name, where)
            check(value, f"{where}.{name}")

    return check_all


def record(**fields: Check) -> Check:
    """A dict of these keys; of others, which a later version may add, only what says nothing."""

    def check(value: Any, where: str) -> None:
        a(dict)(value, where)
        for name, held in value.items():
            fields.get(name, nothing)(held, f"{where}.{name}")

    return check


def union(**kinds: Check) -> Check:
    """A dict of one key, which says of which kind its value is."""

    def check(value: Any, where: str) -> None:
        a(dict)(value, where)
        for kind, held in value.items():
            if kind not in kinds:
                raise Refused(where, f"is {kind}, which is not read")
            kinds[kind](held, f"{where}.{kind}")

    return check


def shown(value: Any) -> str:
    """A value from elsewhere, short and on one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
