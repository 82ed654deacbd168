"""A server that runs within a test, and how it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from conformance import fresh, small
from feature_store.catalogue import Catalogue
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.export.bundle import PartExport, write_bundle
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.server.app import Door, make_app
from recsys.server.auth import Token
from recsys.server.options import ServerOptions
from recsys.server.service import Service
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About
from recsys.serving.users import KnownUsers


def bundle(
    planted: dict[Shape, Examples],
    log: EventLog,
    folder: Path,
    *,
    seed: int,
    ranker: bool = True,
) -> Path:
    """A bundle of models that have learned nothing."""
    examples = planted["sequences"]
    retriever = fresh(small("sasrec"), examples, seed=seed).eval()
    retriever.prepare(examples.candidates())
    parts: dict[str, PartExport] = {
        "generator": GeneratorExport(
            retriever,
            examples,
            examples.candidates(),
            index=ExactConfig(),
            golden=4,
            about=About(run=f"seed_{seed}", model="sasrec"),
        )
    }
    if ranker:
        labelled = planted["labelled"]
        model = fresh(small("dcn"), labelled, seed=seed).eval()
        about = About(run="fine", model="dcn")
        parts["fine"] = RankerExport(model, labelled, golden=4, about=about)
    write_bundle(folder, parts, Catalogue(log.folder, log.schema))
    return folder


class Asking:
    """Asks an application from another thread than its loop's, many at a time if need be."""

    def __init__(self, service: Service, app: Door, loop: asyncio.AbstractEventLoop) -> None:
        self.service, self.app, self.loop = service, app, loop
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://server", timeout=30
        )

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.run(self.client.get(path, headers=headers))

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.run(self.client.post(path, json=body, **more))

    def together(self, path: str, *bodies: Any) -> list[httpx.Response]:
        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*(self.client.post(path, json=body) for body in bodies))

        return self.run(all_of_them())

    def figure(self, name: str) -> float:
        """A figure of Prometheus by its whole name, labels included; 0 where there is none."""
        lines = self.get("/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.split()[0] == name), 0.0)


@contextmanager
def serving(
    folder: Path, token: str | None = None, users: KnownUsers | None = None, **options: Any
) -> Iterator[Asking]:
    """A server of a bundle, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    service = Service(folder, ServerOptions(watch_s=0, **options), users)
    asking = Asking(service, make_app(service, Token(token) if token else None), loop)
    try:
        yield asking
    finally:
        asking.run(asking.client.aclose())
        service.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
