"""A server that speaks S3's protocol, with requests that are counted and faults that are asked for.

It is moto's, in a thread of the tests' own process.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

KEY, SECRET = "AKIA7ONLYFORTESTS", "s3cr3t/of+the/tests"


class Request(NamedTuple):
    method: str
    path: str
    bytes: int | None  # that were asked for, of an object


class Storage:
    """A bucket, what was asked of it, and how its server is to fail."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self.bucket = f"tests-{uuid.uuid4().hex[:8]}"
        self.requests: list[Request] = []
        self.failing = 0  # so many next requests of objects are answered with 503
        self.delay_s = 0.0
        self._application = application

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        asked = environ.get("HTTP_RANGE", "").removeprefix("bytes=").partition("-")
        size = int(asked[2]) - int(asked[0]) + 1 if asked[0] and asked[2] else None
        self.requests.append(Request(method, path, size))
        if method == "GET" and path.count("/") > 1:
            time.sleep(self.delay_s)
            if self.failing:
                self.failing -= 1
                start("503 Service Unavailable", [("Content-Type", "text/xml")])
                return [b"<Error><Code>ServiceUnavailable</Code></Error>"]
        return self._application(environ, start)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def fetched(self) -> list[Request]:
        """Requests of the bytes of objects."""
        return [r for r in self.requests if r.method == "GET" and r.bytes is not None]


def forget_filesystems() -> None:
    """What was connected to another server, or with other credentials."""
    import s3fs

    from feature_store.storage import remote

    remote._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def serving() -> Iterator[Storage]:
    """A server with an empty bucket, which the environment leads to meanwhile."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.moto_server.werkzeug_app")
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    storage = Storage(server_of.DomainDispatcherApplication(server_of.create_backend_app))
    server = make_server("127.0.0.1", 0, storage, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        forget_filesystems()
        from feature_store.storage import place

        place(storage.url).filesystem.mkdir(storage.bucket)  # type: ignore[union-attr]
        yield storage
        forget_filesystems()
    server.shutdown()
    thread.join()
