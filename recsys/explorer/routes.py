"""The page, and what it asks for. A page shows what `looking` gives it, and knows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from pydantic import Field

from feature_store.errors import RecsysError
from recsys.explorer.asking import Who
from recsys.explorer.looking import Looking
from recsys.serving.recommender import Recommender

PAGE = Path(__file__).parent / "page"
PAGES = {
    "/": "index.html",
    "/explorer/explorer.css": "explorer.css",
    "/explorer/explorer.js": "explorer.js",
}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    # nothing of the page comes from elsewhere but pictures that the catalogue names
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: http: https:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
MOST = 100


class Asked(Who):
    """Who asks, and which bundle: 0 the one that is served, 1 the one beside it."""

    bundle: int = Field(0, ge=0, le=1, description="0: served; 1: beside it.")
    k: int = Field(10, ge=1, le=MOST, description="Length of the list.")
    where: str | None = Field(None, max_length=1000, description="A filter over the catalogue.")


class AskedWhy(Asked):
    """Why an item is in a list, or not."""

    item: str = Field(max_length=200, description="The item's id.")


def explorer(bundles: Callable[[], Sequence[Recommender]]) -> APIRouter:
    """Routes of the page at `/` and of what it asks for below `/explorer`; `bundles` gives one
    opened bundle, or two to be compared."""
    router = APIRouter(tags=["explorer"])
    looked_at: list[Looking] = []

    def looking(bundle: int) -> Looking:
        """What is looked at of a bundle, made when it is first asked for."""
        opened = bundles()
        if not 0 <= bundle < len(opened):
            raise HTTPException(404, "there is no bundle beside this one")
        recommender = opened[bundle]
        # what is served no longer goes, and what was made for it
        looked_at[:] = [each for each in looked_at if each.recommender in opened]
        known = next((each for each in looked_at if each.recommender is recommender), None)
        if known is None:
            known = Looking(recommender)
            looked_at.append(known)
        return known

    def told(make: Callable[[], Any]) -> Any:
        """What is made, or why it cannot be, as an answer."""
        try:
            return make()
        except RecsysError as error:
            raise HTTPException(422, str(error)) from None

    @router.get("/explorer/about")
    def about() -> list[dict[str, Any]]:
        """What the bundles are."""
        return [looking(place).about() for place in range(len(bundles()))]

    @router.get("/explorer/items")
    def items(q: str = "", most: int = 20, bundle: int = 0) -> list[dict[str, Any]]:
        """Items by words of their titles."""
        return looking(bundle).items(q[:200], min(max(most, 1), MOST))

    @router.get("/explorer/users")
    def users(q: str = "", most: int = 12, bundle: int = 0) -> list[str]:
        """Known users by the beginning of their ids."""
        return looking(bundle).users(q[:200], min(max(most, 1), MOST))

    @router.post("/explorer/somebody")
    def somebody(asked: Asked) -> dict[str, Any]:
        """The history and the features of who asks."""
        return told(lambda: looking(asked.bundle).somebody(asked))

    @router.post("/explorer/lists")
    def lists(asked: Asked) -> dict[str, Any]:
        """The answer, and what each stage made of it."""
        return told(lambda: looking(asked.bundle).lists(asked, asked.k, asked.where))

    @router.post("/explorer/why")
    def why(asked: AskedWhy) -> dict[str, Any]:
        """Why an item is there, or why not."""
        return told(lambda: looking(asked.bundle).why(asked, asked.item, asked.k, asked.where))

    @router.post("/explorer/words")
    def words(asked: AskedWhy) -> dict[str, Any]:
        """The words that an item's score comes from."""
        return told(lambda: looking(asked.bundle).words(asked, asked.item))

    for path, name in PAGES.items():
        router.add_api_route(path, partial(_contents, name), include_in_schema=False)
    return router


def _contents(name: str) -> Response:
    path = PAGE / name
    return Response(path.read_bytes(), media_type=_KINDS[path.suffix], headers=_HEADERS)
