"""The same functions as tools of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from asked import serving
from mcp import Client
from mcp.server.stdio import stdio_server

from recsys.server.mcp import make_mcp, serve_mcp
from recsys.server.options import ServerOptions
from recsys.server.service import Service


def test_tools_answer_as_the_server_does(folder: Path) -> None:
    async def ask(service: Any) -> None:
        async with Client(make_mcp(service)) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"recommend", "similar", "score"}
            assert all(tool.description for tool in tools.values())
            told = await client.call_tool("recommend", {"user": 1007, "k": 3})
            assert not told.is_error
            answers["recommend"] = told.structured_content
            told = await client.call_tool("similar", {"items": ["i03"], "k": 2})
            answers["similar"] = told.structured_content
            told = await client.call_tool("score", {"user": 1007, "items": ["i03", "i05"]})
            answers["score"] = told.structured_content
            for tool, wrong, line in (
                ("recommend", {"user": "nobody"}, "user: 'nobody' is not an integer"),
                ("recommend", {"user": 1007, "k": 0}, "greater than or equal to 1"),
                ("similar", {"items": ["nothing"]}, "no item 'nothing'"),
            ):
                told = await client.call_tool(tool, wrong)
                assert told.is_error and line in str(told.content), told.content

    answers: dict[str, Any] = {}
    with serving(folder) as asking:
        asking.run(ask(asking.service))
        assert answers == {
            "recommend": asking.post("/recommend", {"user": 1007, "k": 3}).json(),
            "similar": asking.post("/similar", {"items": ["i03"], "k": 2}).json(),
            "score": asking.post("/score", {"user": 1007, "items": ["i03", "i05"]}).json(),
        }


def test_tools_answer_over_stdin_and_stdout(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `recsys serve --mcp` does, until stdin ends; both ends speak in the same lines."""
    (reads, asks), (hears, tells) = os.pipe(), os.pipe()
    service = Service(folder, ServerOptions(watch_s=0))

    stdin, there = os.fdopen(reads), os.fdopen(hears)
    stdout, out = os.fdopen(tells, "w"), os.fdopen(asks, "w")

    def serve() -> None:
        with stdin, stdout:  # which end as those of a process do
            serve_mcp(service)

    async def ask() -> Any:
        ends = stdio_server(anyio.wrap_file(there), anyio.wrap_file(out))
        async with Client(ends) as client:
            told = await client.call_tool("recommend", {"user": 1007, "k": 3})
            wrong = await client.call_tool("recommend", {"user": "nobody"})
            out.close()
        assert wrong.is_error and "'nobody' is not an integer" in str(wrong.content)
        return told.structured_content

    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", stdout)
    serving_it = threading.Thread(target=serve, daemon=True)
    serving_it.start()
    with out, there:
        (answer,) = asyncio.run(ask())["answers"]
    serving_it.join(20)
    assert not serving_it.is_alive()
    assert answer["user"] == 1007 and len(answer["items"]) == 3
    assert "fault" not in capfd.readouterr().err
