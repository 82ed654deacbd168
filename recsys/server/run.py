"""A server as a process: signals, and an end that answers what it has."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import uvicorn

from recsys.server.app import make_app
from recsys.server.auth import Token
from recsys.server.logs import log, log_to_stderr
from recsys.server.service import Service
from recsys.server.swap import aside

_SWITCH = (
    0.0005  # seconds until a thread that wants to run gets its turn: by default ten times that
)


_GARBAGE = (50_000, 10, 1000)  # objects, and collections of the younger ones, until the next one


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it: a stop that was asked for is no failure."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def prepare(threads: int | None) -> None:
    """Set up the process, before it opens a bundle.

    A batch is computed by so many `threads`, by default by half of the processors: the others read
    and write. All objects are hardly ever looked through for garbage, since that stops everything
    for a tenth of a second: requests leave none, and a swap collects what the old bundle leaves.
    """
    import faiss

    threads = threads or max(1, (os.cpu_count() or 2) // 2)
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    sys.setswitchinterval(_SWITCH)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def serve(
    service: Service, token: Token | None = None, sockets: list[socket.socket] | None = None
) -> None:
    """Answer until SIGTERM or Ctrl-C, then what was asked before; SIGHUP takes another bundle. At
    `sockets` that are bound, by default at the options' host and port."""
    log_to_stderr()
    options = service.options
    config = uvicorn.Config(
        make_app(service, token),
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        timeout_graceful_shutdown=max(1, round(options.drain_s)),
        backlog=2048,
    )
    with asyncio.Runner(
        loop_factory=config.get_loop_factory()
    ) as runner:  # uvloop's, if it is there
        runner.run(_serve(service, _Server(config), sockets))


async def _serve(service: Service, server: _Server, sockets: list[socket.socket] | None) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        """Accept nothing more, and end when all is answered; asked again, end at once."""
        log("stopping", waiting=sum(service.waiting().values()))
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    reloading: set[asyncio.Future[bool]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(aside(service.reload))
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    log(
        "serving",
        bundle=service.swap.live.version,
        host=server.config.host,
        port=server.config.port,
    )
    await server.serve(sockets)
    log("stopped")
