"""The same functions as tools of the Model Context Protocol, over stdin and stdout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pydantic
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

import recsys
from recsys.server.errors import refused
from recsys.server.isolating import as_refused
from recsys.server.logs import log_to_stderr
from recsys.server.models import (
    Features,
    Id,
    Ids,
    Recommend,
    Recommended,
    Score,
    Scored,
    Similar,
    SimilarTo,
)
from recsys.server.service import Service

Q = TypeVar("Q", bound=pydantic.BaseModel)
A = TypeVar("A")


def make_mcp(service: Service) -> MCPServer:
    """A server of tools that answer from a service."""
    server: MCPServer = MCPServer(
        "recsys",
        version=recsys.__version__,
        instructions="Recommendations from a verified bundle. Ids are those of its event log.",
    )

    @server.tool(structured_output=True)
    async def recommend(
        user: Id | None = None,
        history: Ids | None = None,
        k: int = 10,
        exclude: Ids | None = None,
        where: str | None = None,
        features: Features | None = None,
    ) -> Recommended:
        """The k best items for a known user, or for whoever had the items of a history, oldest
        first; without those that are excluded, and of those that fulfil a condition on the
        catalogue, such as `genre in ("Comedy", "Drama") and not year < 1990`."""
        body = {
            "user": user,
            "history": history,
            "k": k,
            "exclude": exclude or [],
            "where": where,
            "features": features or {},
        }
        return await _told(Recommend, service.recommend, body)

    @server.tool(structured_output=True)
    async def similar(items: Ids, k: int = 10) -> SimilarTo:
        """The k items nearest to each of some items."""
        return await _told(Similar, service.similar, {"items": items, "k": k})

    @server.tool(structured_output=True)
    async def score(items: Ids, user: Id | None = None, task: str | None = None) -> Scored:
        """How likely items are for a user."""
        return await _told(Score, service.score, {"user": user, "items": items, "task": task})

    return server


def serve_mcp(service: Service) -> None:
    """Answer until stdin ends."""
    log_to_stderr()  # stdout is the protocol's
    asyncio.run(_serve(service))


async def _serve(service: Service) -> None:
    async with service.running():
        await make_mcp(service).run_stdio_async()


async def _told(asked: type[Q], answer: Callable[[Q], Awaitable[A]], body: dict[str, Any]) -> A:
    """An answer, or the line that says why there is none."""
    try:
        return await answer(asked.model_validate(body))
    except pydantic.ValidationError as error:
        raise ToolError(refused(error).message) from None
    except Exception as error:
        raise ToolError(as_refused(error).message) from None
