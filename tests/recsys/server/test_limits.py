"""What a server refuses: too much, at once or in all, and what is no question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asked import Asking, serving


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/recommend", {"user": 1, "k": 1001}, "k: Input should be less than or equal to 1000"),
        ("/recommend", {"user": 1, "k": 0}, "k: Input should be greater than or equal to 1"),
        ("/recommend", {"user": 1, "k": True}, "k: Input should be a valid integer"),
        ("/recommend", {"user": 1, "k": 1.0}, "k: Input should be a valid integer"),
        ("/recommend", {"history": ["i"] * 10_001}, "history: List should have at most 10000"),
        ("/recommend", {"requests": [{"user": 1}] * 257}, "requests: List should have at most 256"),
        ("/recommend", {"requests": []}, "requests: List should have at least 1 item"),
        ("/recommend", {}, "user: give a user or a history, or several questions in requests"),
        ("/recommend", {"requests": [{}]}, "requests.0.user: give a user or a history"),
        ("/recommend", {"user": 1, "requests": [{"user": 1}]}, "user: give a user or a history,"),
        ("/recommend", {"usr": 1}, "usr: Extra inputs are not permitted"),
        ("/recommend", {"user": "x" * 1025}, "user: String should have at most 1024 characters"),
        ("/recommend", {"history": ["i", 0.5]}, "history.1: Input should be an integer or a text"),
        ("/recommend", {"user": 1, "features": {"a": {}}}, "features.a: Input should be"),
        ("/recommend", {"history": [], "history_time": [3]}, "history_time: has another length"),
        ("/recommend", [], "Input should be an object"),
        ("/similar", {"items": ["i"] * 257}, "items: List should have at most 256"),
        ("/score", {"items": []}, "items: List should have at least 1 item"),
    ],
)
def test_a_field_beyond_its_limit_is_named(
    asking: Asking, path: str, body: Any, message: str
) -> None:
    answer = asking.post(path, body)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"user": NaN}', b"\xff", b'"\\ud800"', b"[" * 4000])
def test_what_is_no_json_is_refused_in_a_line(asking: Asking, body: bytes) -> None:
    answer = asking.run(asking.client.post("/recommend", content=body))
    assert answer.status_code == 422 and answer.json()["error"]


def test_a_body_beyond_the_limit_is_not_read(folder: Path) -> None:
    with serving(folder, max_body=100) as asking:
        told = asking.post("/recommend", {"history": ["i00"] * 100})

        async def parts() -> Any:
            for _ in range(20):
                yield b"[" * 10
            raise AssertionError("read on beyond the limit")

        untold = asking.run(asking.client.post("/recommend", content=parts()))
    for answer in (told, untold):
        assert answer.status_code == 413
        assert answer.json() == {
            "error": "body: at most 100 bytes, more were sent: ask in several calls",
            "field": "body",
        }


def test_a_token_is_asked_for_by_all_but_what_watches_the_process(folder: Path) -> None:
    token = "a-token-of-some-length"
    with serving(folder, token) as asking:
        for headers in ({}, {"authorization": "Bearer another"}, {"authorization": token}):
            answer = asking.post("/recommend", {"user": 1001}, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert "error" in answer.json()
        assert asking.get("/metrics").status_code == 401
        assert asking.get("/openapi.json").status_code == 401
        assert asking.get("/healthz").status_code == asking.get("/readyz").status_code == 200
        right = {"authorization": f"Bearer {token}"}
        assert asking.post("/recommend", {"user": 1001}, headers=right).status_code == 200
