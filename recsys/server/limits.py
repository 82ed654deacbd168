"""How much a question may hold. Bodies are measured before they are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from recsys.server.errors import Refused

MOST_ITEMS = 1000
"""Of an answer: k."""
LONGEST_LIST = 10_000
"""Ids of a history, of items to score, and of those that are allowed or left out."""
MOST_QUESTIONS = 256
"""Of one call."""
MOST_FEATURES = 256
LONGEST_TEXT = 1024
"""Characters of an id or of a feature's value."""
LONGEST_EXPRESSION = 4096
"""Characters of a filter."""

Receive = Callable[[], Awaitable[Any]]


class Gone(Exception):
    """Whoever asked has hung up."""


async def body_of(scope: Any, receive: Receive, most: int) -> bytes:
    """The body of a request. Raises Refused (413) where it has more than so many bytes."""
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if told.isdigit() and int(told) > most:
        raise _too_large(most)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False):
            if size > most:
                raise _too_large(most)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise Gone
    if len(body) > most:
        raise _too_large(most)
    return body


def _too_large(most: int) -> Refused:
    return Refused(
        413, f"body: at most {most:,} bytes, more were sent: ask in several calls", field="body"
    )
