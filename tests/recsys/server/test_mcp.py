"""The same functions as tools of the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asked import serving
from mcp import Client

from recsys.server.mcp import make_mcp


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
