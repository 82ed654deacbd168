"""What comes in through the command line is taken whole, or refused in one line that helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Ask = Callable[..., tuple[Any, str, str]]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("words", [["recommend", ".", "--diversity"], ["plan", ".", "--hbm"]])
def test_no_number_of_the_command_line_is_none(recsys: Ask, words: list[str], value: str) -> None:
    status, _, errors = recsys(*words, value)
    assert status == 2 and words[-1] in errors and "Invalid value" in errors
