"""A question over HTTP: read, validated, answered, and any error told as JSON.

The framework reads signatures for the document alone; here bodies are validated from their bytes,
and answers written, in one step each, which is most of what a request costs.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic
from pydantic_core import to_json

from recsys.server.errors import Refused, refused
from recsys.server.isolating import as_refused
from recsys.server.limits import Gone, body_of

Q = TypeVar("Q", bound=pydantic.BaseModel)
Send = Callable[[Any], Awaitable[None]]

JSON = b"application/json"


@dataclass(frozen=True)
class Endpoint(Generic[Q]):
    """Answers POST requests, as an ASGI application: `asked` is the model of bodies, which have at
    `most` so many bytes."""

    asked: type[Q]
    answer: Callable[[Q], Awaitable[Mapping[str, Any]]]
    most: int

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Read a request and answer it."""
        try:
            body = await body_of(scope, receive, self.most)
            answer = await self.answer(self.asked.model_validate_json(body))
        except Gone:
            return
        except pydantic.ValidationError as error:
            await send_error(send, refused(error))
        except Exception as error:
            await send_error(send, as_refused(error))
        else:
            await send_answer(send, 200, to_json(answer))


async def send_answer(
    send: Send,
    status: int,
    body: bytes,
    kind: bytes = JSON,
    *more: tuple[bytes, bytes],
) -> None:
    """A whole answer."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: Refused) -> None:
    """An error as JSON, with the headers that belong to its status."""
    more = []
    if error.retry_after is not None:
        more.append((b"retry-after", b"%d" % error.retry_after))
    if error.status == 401:
        more.append((b"www-authenticate", b"Bearer"))
    if error.status == 413:  # what is left of the body is not read
        more.append((b"connection", b"close"))
    body = json.dumps(error.answer()).encode()
    await send_answer(send, error.status, body, JSON, *more)
