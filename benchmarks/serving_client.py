"""A lean client for load: some connections, each of which asks again as soon as it was answered.

In a process of its own, with nothing but sockets: what it costs is taken from the server, which has
the same processors.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np


class Load:
    """Asks a port the same questions over and over, in a process of its own."""

    def __init__(self, port: int, bodies: Sequence[bytes], path: str = "/recommend") -> None:
        self._task = {"port": port, "path": path, "bodies": [body.decode() for body in bodies]}

    def run(self, connections: int, seconds: float) -> dict[str, Any]:
        """Figures of so many connections."""
        task = json.dumps({**self._task, "connections": connections, "seconds": seconds})
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving_client"],
            input=task.encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


class Connection:
    """A socket, its question, and when it was asked."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begun, self._read = 0.0, b""

    def ask(self, request: bytes) -> None:
        """Send a question; it is small enough for the socket's buffer."""
        self._read, self.begun = b"", time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bytes | None:
        """The status line, once the answer is whole."""
        data = self.socket.recv(1 << 18)
        if not data:
            return b"closed"
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return None
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        return head.split(b"\r\n", 1)[0] if len(body) >= int(length) else None


def ask(port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Ask for so many seconds, and what came of it."""
    selector, took, errors, place = selectors.DefaultSelector(), [], 0, 0
    for _ in range(connections):
        connection = Connection(port)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.ask(requests[place % len(requests)])
        place += 1
    start, cpu = time.perf_counter(), time.process_time()
    until = start + seconds
    while time.perf_counter() < until:
        for key, _ in selector.select(1.0):
            status = key.data.answered()
            if status is None:
                continue
            if status != b"HTTP/1.1 200 OK":
                errors += 1
                if status == b"closed":
                    raise SystemExit("the server has hung up")
            took.append(time.perf_counter() - key.data.begun)
            key.data.ask(requests[place % len(requests)])
            place += 1
    elapsed = time.perf_counter() - start
    p50, p99 = (np.percentile(took, [50, 99]) * 1000).round(3).tolist()
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "requests_per_second": round(len(took) / elapsed, 1),
        "errors": errors,
        "requests": len(took),
        "client_cpu": round((time.process_time() - cpu) / elapsed, 3),
    }


def main() -> None:
    """Read a task from stdin and print its figures."""
    task = json.load(sys.stdin)
    head = f"POST {task['path']} HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\n"
    requests = [
        f"{head}content-length: {len(body.encode())}\r\n\r\n{body}".encode()
        for body in task["bodies"]
    ]
    print(json.dumps(ask(task["port"], requests, task["connections"], task["seconds"])))


if __name__ == "__main__":
    main()
