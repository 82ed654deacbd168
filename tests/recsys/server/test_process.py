"""A server as a process: how signals reload and end it, and what its log says."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from recsys.server.auth import Token
from recsys.server.options import ServerOptions
from recsys.server.run import serve
from recsys.server.service import Service

TOKEN = "a-secret-that-nobody-reads"


def test_it_answers_what_it_was_asked_and_ends(
    folder: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After SIGHUP and SIGTERM, as `recsys serve` does: without an error, so that the status is 0.
    Its log is JSON, without the token and without what was asked."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = int(asked.getsockname()[1])
    link = tmp_path / "current"
    link.symlink_to(folder)
    service = Service(link, ServerOptions(port=port, window_ms=300, watch_s=0))
    first, answers = service.swap.live, []

    def ask(body: str, more: dict[str, str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/recommend", body, more)
        answers.append(connection.getresponse().status)

    def live_through() -> None:
        try:
            for _ in range(200):
                try:
                    ask("no question", {})
                    break
                except OSError:
                    time.sleep(0.02)
            link.unlink()
            link.symlink_to(other)
            os.kill(os.getpid(), signal.SIGHUP)
            for _ in range(1000):
                if service.swap.live is not first:
                    break
                time.sleep(0.01)
            body = json.dumps({"history": ["i00", "a-secret-of-mine"]})
            asking = threading.Thread(target=ask, args=(body, {"Authorization": f"Bearer {TOKEN}"}))
            asking.start()
            time.sleep(0.1)  # the question waits for others
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
        asking.join()

    living = threading.Thread(target=live_through)
    living.start()
    serve(service, Token(TOKEN))
    living.join()
    assert answers == [401, 200]
    told = capsys.readouterr().err
    assert "secret" not in told and "Traceback" not in told
    events = [json.loads(line)["event"] for line in told.splitlines()]
    assert events == ["serving", "bundle taken", "stopping", "stopped"]
