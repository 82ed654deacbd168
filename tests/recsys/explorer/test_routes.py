"""What the page asks for, and that it asks nobody else."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from recsys.explorer.routes import PAGE, explorer
from recsys.serving.recommender import Recommender


@pytest.fixture(scope="module")
def client(cascade: Recommender, interests: Recommender) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(explorer(lambda: [cascade, interests]))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_both_bundles_answer(client: TestClient) -> None:
    about = client.get("/explorer/about").json()
    assert [each["cascade"] for each in about] == [True, False]
    assert about[0]["generators"] == ["sasrec"] and about[0]["users"] > 0
    lists = [
        client.post("/explorer/lists", json={"user": "1001", "bundle": place, "k": 3}).json()
        for place in (0, 1)
    ]
    assert [len(each["answer"]) for each in lists] == [3, 3]
    assert len(client.get("/explorer/users", params={"most": 5}).json()) == 5
    assert client.get("/explorer/items", params={"q": "number 12"}).json()[0]["item"] == "i12"


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("lists", {"user": "nobody"}, "users must be of type"),
        ("lists", {}, "name a known user"),
        ("lists", {"user": "1001", "k": 0}, "k"),
        ("lists", {"user": "1001", "lenght": 3}, "lenght"),
        ("lists", {"history": ["i01"] * 1001}, "history"),
        ("why", {"user": "1001", "item": "none"}, "unknown item: none"),
        ("somebody", {"user": "1001", "bundle": 2}, "bundle"),
    ],
)
def test_what_cannot_be_answered_is_told(
    client: TestClient, path: str, body: dict[str, object], told: str
) -> None:
    answer = client.post(f"/explorer/{path}", json=body)
    assert answer.status_code == 422 and told in answer.text


def test_a_single_bundle_has_none_beside_it(cascade: Recommender) -> None:
    app = FastAPI()
    app.include_router(explorer(lambda: [cascade]))
    client = TestClient(app)
    answer = client.post("/explorer/lists", json={"user": "1001", "bundle": 1})
    assert answer.status_code == 404
    places = (client.get(f"/explorer/items?bundle={place}") for place in (-1, -2, 1))
    assert {each.status_code for each in places} == {404}


def test_a_bundle_that_is_served_no_longer_is_let_go(cascade: Recommender) -> None:
    first, second = (Recommender(cascade.bundle) for _ in range(2))
    served, gone = [first], weakref.ref(first)
    app = FastAPI()
    app.include_router(explorer(lambda: served))
    client = TestClient(app)
    assert client.get("/explorer/about").status_code == 200
    served[:] = [second]
    assert client.get("/explorer/about").status_code == 200
    del first
    gc.collect()
    assert gone() is None


def test_the_page_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert sorted(named) == ["/explorer/explorer.css", "/explorer/explorer.js"]
    for path in named:
        assert client.get(path).status_code == 200
    for file in PAGE.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}
    script = (PAGE / "explorer.js").read_text()
    assert "innerHTML" not in script and "eval(" not in script  # titles are text, never markup
