"""One question among many never fails the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from feature_store.errors import RecsysError
from recsys.server.errors import Refused

Q = TypeVar("Q")
A = TypeVar("A")

_FAULT = "this is a fault of the server: its log says where"


def each_alone(
    answer: Callable[[Sequence[Q]], Sequence[A]], questions: Sequence[Q]
) -> list[A | Exception]:
    """Answers to questions, all at once where that can be; where it cannot, halves are asked, so
    that of n questions a bad one costs log2(n) more calls and is the only one without an answer."""
    try:
        return list(answer(questions))
    except Exception as error:
        if len(questions) == 1:
            return [as_refused(error)]
    half = len(questions) // 2
    return each_alone(answer, questions[:half]) + each_alone(answer, questions[half:])


def as_refused(error: Exception) -> Refused:
    """What whoever asked is told of an error: what they can mend, in a line; of a fault, only that
    it is one. Its own words may hold a history, and so are not logged either."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, RecsysError):
        return Refused(422, str(error))
    if isinstance(error, pa.ArrowInvalid | pa.ArrowTypeError):
        return Refused(422, f"a value of the question cannot be read: {error}")
    log_fault(error)
    return Refused(500, _FAULT)


def log_fault(error: BaseException) -> None:
    """Say where an error nobody foresaw came from, without its words."""
    places, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    logging.getLogger("recsys.server").error(
        "fault", extra={"fields": {"error": type(error).__name__, "at": places[-8:]}}
    )
