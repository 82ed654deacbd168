"""Several processes that answer at one port."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from feature_store.errors import ConfigError
from recsys.server import workers
from recsys.server.workers import listening, work_together


def tells_who_it_is(at: socket.socket) -> None:
    """Answers every connection with the number of the process."""
    at.listen()
    while True:
        connection, _ = at.accept()
        with connection:
            connection.sendall(str(os.getpid()).encode())


def who(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        return int(connection.recv(64))


def every(port: int, count: int) -> set[int]:
    """The processes that answer, once there are so many."""
    seen: set[int] = set()
    for _ in range(2000):
        try:
            seen.add(who(port))
        except (OSError, ValueError):  # it has just been killed
            time.sleep(0.01)
        if len(seen) == count:
            return seen
    raise AssertionError(f"only {seen} answer")


def test_one_that_is_killed_is_begun_anew_and_a_stop_ends_all(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "_SETTLED", 0.0)
    sockets = listening("127.0.0.1", 0, 2)
    port = sockets[0].getsockname()[1]
    assert sockets[1].getsockname()[1] == port
    left: list[set[int]] = []

    def live_through() -> None:
        try:
            first = every(port, 2)
            killed = first.pop()
            os.kill(killed, signal.SIGKILL)
            while (second := every(port, 2)) - first == {killed}:
                pass
            left.append(second)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=live_through)
    thread.start()
    assert work_together(tells_who_it_is, sockets) == 0
    thread.join()
    for process in left[0]:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    told = capfd.readouterr().err
    assert '"event": "worker ended", "status": -9' in told and "Traceback" not in told


def test_a_worker_that_cannot_begin_ends_all(capfd: pytest.CaptureFixture[str]) -> None:
    def refuses(at: socket.socket) -> None:
        raise ConfigError("there is no bundle")

    assert work_together(refuses, listening("127.0.0.1", 0, 2)) == 1
    assert '"reason": "there is no bundle"' in capfd.readouterr().err


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1, port {port}"):
            listening("127.0.0.1", port, 2)
