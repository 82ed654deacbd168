"""What is answered where a question cannot be: one line, a status, and never a traceback."""

from __future__ import annotations

from typing import NotRequired

import pydantic
from typing_extensions import TypedDict

_LONGEST = 400  # characters of a line


class ErrorAnswer(TypedDict):
    """Why a question was not answered, in one line, and which of its fields is to blame."""

    error: str
    field: NotRequired[str]


class Refused(Exception):
    """A question that is not answered, with the status that says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, _line(message), field
        self.retry_after = retry_after

    def answer(self) -> ErrorAnswer:
        """As JSON."""
        if self.field is None:
            return {"error": self.message}
        return {"error": self.message, "field": self.field}


def refused(error: pydantic.ValidationError) -> Refused:
    """The first thing that is wrong with a body, without the value itself."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    place, message = errors[0]["loc"], errors[0]["msg"].removeprefix("Value error, ")
    if place and place[-1] in ("int", "bool"):  # an id or a value, which may be of several types
        place = place[:-1]
        alike = [each for each in errors if each["loc"][: len(place)] == place]
        known = (each["msg"] for each in alike if not each["type"].endswith("_type"))
        message = next(known, "Input should be an integer or a text")
    field = _line(".".join(map(str, place)))
    return Refused(422, f"{field}: {message}" if field else message, field=field or None)


def _line(words: str) -> str:
    """Words in one line that can be printed."""
    line = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode()
        for sign in " ".join(words.split())
    )
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
