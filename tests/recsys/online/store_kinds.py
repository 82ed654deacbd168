"""The kinds of stores that take events, and what makes an address of one."""

from __future__ import annotations

from collections.abc import Callable

KINDS = ("sqlite", "redis")
Place = Callable[[str], str]
