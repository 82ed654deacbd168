"""The server as an ASGI application: the door, and behind it the endpoints and their document."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import recsys
from recsys.explorer.routes import PAGES, explorer
from recsys.server.auth import Token
from recsys.server.endpoint import Endpoint, send_error
from recsys.server.errors import ErrorAnswer, Refused
from recsys.server.isolating import as_refused
from recsys.server.models import (
    Added,
    Events,
    Grown,
    Health,
    Items,
    Ready,
    Recommend,
    Recommended,
    Score,
    Scored,
    Similar,
    SimilarTo,
)
from recsys.server.service import Service
from recsys.server.swap import aside

# without a token: to whoever watches the process, and the page, which asks for it
_OPEN = ("/healthz", "/readyz", *PAGES)
_REASONS = {401: "token", 413: "body", 422: "question", 429: "queue", 503: "deadline"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        401: "No token, or another one.",
        413: "The body is too large.",
        422: "The question cannot be read, or not be answered.",
        429: "Too many questions wait.",
        503: "Not answered before the deadline.",
    }.items()
}
_NO_BUNDLE = {"model": ErrorAnswer, "description": "No bundle is shown beside this one."}
_NO_ITEMS = {"model": ErrorAnswer, "description": "The server takes no items."}
_NO_STORE = {"model": ErrorAnswer, "description": "The server keeps no events."}


class Door:
    """Checks the token, finds who answers, and counts. The endpoints are called without the
    framework, which documents them, and answers all else."""

    def __init__(self, api: FastAPI, service: Service, token: Token | None) -> None:
        self.api, self.service, self._token = api, service, token
        self._endpoints = _endpoints(service)
        self._paths = {getattr(route, "path", "") for route in api.routes}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        started, status, path = time.perf_counter(), 499, scope["path"]

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._token is not None and path not in _OPEN:
                self._token.check(scope["headers"])
            endpoint = self._endpoints.get(path) if scope["method"] == "POST" else None
            await (self.api if endpoint is None else endpoint)(scope, receive, sending)
        except Refused as error:
            await send_error(sending, error)
        finally:
            metrics = self.service.metrics
            known = path if path in self._paths else "other"
            metrics.answered(known, status, time.perf_counter() - started)
            if status in _REASONS:
                metrics.rejected(_REASONS[status])


def make_app(service: Service, token: Token | None = None) -> Door:
    """The application that answers from a service."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        """Watch for other bundles while it runs."""
        async with service.running():
            yield

    api = FastAPI(
        title="recsys",
        version=recsys.__version__,
        summary="Recommendations from a verified bundle.",
        lifespan=lifespan,
        docs_url=None,  # pages that load scripts from elsewhere
        redoc_url=None,
        max_body_size=service.options.max_body,
    )

    @api.post("/recommend", summary="Items for users.", responses=_ERRORS)
    async def recommend(body: Recommend) -> Recommended:
        return await service.recommend(body)

    @api.post("/similar", summary="Items near items.", responses=_ERRORS)
    async def similar(body: Similar) -> SimilarTo:
        return await service.similar(body)

    @api.post("/score", summary="How likely items are for a user.", responses=_ERRORS)
    async def score(body: Score) -> Scored:
        return await service.score(body)

    @api.post("/events", summary="Add what users did.", responses={**_ERRORS, 404: _NO_STORE})
    async def events(body: Events) -> Added:
        return await service.events(body)

    @api.post("/items", summary="Add new items.", responses={**_ERRORS, 404: _NO_ITEMS})
    async def items(body: Items) -> Grown:
        return await service.items(body)

    @api.get("/healthz", summary="Whether the process lives.")
    async def healthz() -> Health:
        return {"status": "ok"}

    @api.get("/readyz", summary="What answers, and whether another bundle was refused.")
    async def readyz() -> Ready:
        return service.ready()

    @api.get("/metrics", summary="Figures for Prometheus.", response_class=Response)
    async def metrics() -> Response:
        for path, count in service.waiting().items():
            service.metrics.waiting(path, count)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @api.post(
        "/-/reload",
        summary="Take the bundle that lies at the path now.",
        responses={409: {"model": ErrorAnswer, "description": "It is refused."}},
    )
    async def reload() -> Ready:
        if not await aside(service.reload):
            why = service.ready().get("refused", "")
            raise Refused(409, f"the bundle is refused, the old one goes on: {why}")
        service.tell_others()
        return service.ready()

    if service.options.explorer:
        api.include_router(explorer(service.looked_at), responses={**_ERRORS, 404: _NO_BUNDLE})
    api.add_exception_handler(Refused, _tell)
    api.add_exception_handler(HTTPException, _tell_framework)
    api.add_exception_handler(RequestValidationError, _tell_validation)
    api.add_exception_handler(Exception, _tell)
    return Door(api, service, token)


def _endpoints(service: Service) -> dict[str, Endpoint[Any]]:
    """What is answered without the framework, by path."""
    most = service.options.max_body
    return {
        "/recommend": Endpoint(Recommend, service.recommend, most),
        "/similar": Endpoint(Similar, service.similar, most),
        "/score": Endpoint(Score, service.score, most),
        "/events": Endpoint(Events, service.events, most),
        "/items": Endpoint(Items, service.items, most),
    }


async def _tell(request: Request, error: Exception) -> Response:
    told = as_refused(error)
    return JSONResponse(told.answer(), told.status)


async def _tell_framework(request: Request, error: Exception) -> Response:
    """No such path, or another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _tell_validation(request: Request, error: Exception) -> Response:
    """A question that the framework has read, without what it held."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"][1:]))  # without where it lies: in the body, or behind ?
    return await _tell(request, Refused(422, f"{field}: {first['msg']}", field=field))
