"""A Redis server of one's own, on a socket, for as long as it is needed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "redis-server"


@contextmanager
def redis_server(*options: str) -> Iterator[Path]:
    """The socket of a server that listens there alone, with further `options`. Raises
    FileNotFoundError where no server is installed, RuntimeError where it does not start."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise FileNotFoundError(f"no {PROGRAM}: `make test` installs it for root on Debian")
    folder = Path(tempfile.mkdtemp(prefix="redis-"))  # short: a socket's path has 107 bytes
    socket = folder / "s"
    words = [
        program,
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    server = subprocess.Popen(
        [*words, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 30
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{program} did not start")
            time.sleep(0.01)
        yield socket
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)
