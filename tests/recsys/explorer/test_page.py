"""The page in a browser, by keyboard alone, on a phone, dark and light."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright

from browser import chromium
from recsys.explorer.asking import Who
from recsys.explorer.looking import Looking
from recsys.server.app import make_app
from recsys.server.auth import Token
from recsys.server.options import ServerOptions
from recsys.server.service import Service
from recsys.serving.recommender import Recommender

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium: see make browser")


TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def service(cascade: Recommender, interests: Recommender) -> Service:
    options = ServerOptions(watch_s=0, beside=interests.bundle.folder)
    return Service(cascade.bundle.folder, options)


@contextmanager
def served(service: Service, token: Token | None = None) -> Iterator[str]:
    """The address of a server."""
    server = uvicorn.Server(uvicorn.Config(make_app(service, token), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    """Where two bundles are looked into."""
    with served(service) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        opened = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield opened
        opened.close()


@pytest.fixture
def faults() -> list[str]:
    return []


@pytest.fixture
def page(browser: Any, address: str, faults: list[str]) -> Iterator[Any]:
    """A page that gathers its faults, and whom it asks besides its server."""
    opened = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
    opened.set_default_timeout(20_000)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((address, "data:")) else faults.append(request.url)
        ),
    )
    yield opened
    opened.close()


def titles(page: Any, within: str = "#answer") -> list[str]:
    return list(page.locator(f"{within} .card .title").all_text_contents())


def test_everything_is_reached_by_keyboard(
    page: Any, address: str, looking: Looking, faults: list[str], tmp_path: Path
) -> None:
    page.goto(address)
    page.wait_for_selector("#answer .tools button")  # some users to begin with
    page.keyboard.press("/")
    page.wait_for_selector("#users li")
    page.keyboard.type("1001")
    expect(page.locator("#users li")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer .card")
    answer = looking.lists(Who(user="1001"), 10)["answer"]
    assert titles(page) == [card["title"] for card in answer]
    had = looking.somebody(Who(user="1001"))["history"]
    assert page.locator("#history .card").count() == len(had)

    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reasons table")
    told = looking.why(Who(user="1001"), answer[1]["item"], 10)["told"]
    assert page.text_content("#reasons .note").lower() == f"{told}.".lower()
    assert page.locator("#reasons .bar").count() > 1
    page.screenshot(path=tmp_path / "why.png")

    page.keyboard.press("+")  # the item into the history: another list
    expect(page.locator("#history .card")).to_have_count(len(had) + 1)
    assert page.locator("#history .card .title").first.text_content() == answer[1]["title"]
    assert answer[1]["title"] not in titles(page)
    page.keyboard.press("Escape")
    assert page.locator("#why").is_hidden()

    page.keyboard.press("c")
    page.wait_for_selector("#answer .moved")
    assert page.locator("#answer .columns > div").count() == 2
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#stages [aria-selected=true]:has-text('sasrec')")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    assert faults == []


def test_an_address_leads_back(page: Any, address: str, looking: Looking) -> None:
    page.goto(f"{address}#history=i01,i08&k=5&stage=sasrec")
    page.wait_for_selector("#answer .card")
    lists = looking.lists(Who(history=["i01", "i08"]), 5)
    assert titles(page) == [card["title"] for card in lists["stages"][0]["items"]]
    page.goto(f"{address}#user=1001&why=i01")
    page.wait_for_selector("#reasons .note")
    page.go_back()
    expect(page.locator("#history .card")).to_have_count(2)


def test_what_is_wrong_is_told(page: Any, address: str, faults: list[str]) -> None:
    page.goto(f"{address}#user=nobody")
    page.wait_for_selector("#answer .fault")
    assert "users must be of type" in page.text_content("#answer .fault")
    assert faults == []


@pytest.mark.parametrize(("scheme", "light"), [("dark", False), ("light", True)])
def test_a_phone_shows_it_whole(
    browser: Any, address: str, scheme: str, light: bool, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto(f"{address}#user=1001&beside=1")
    page.wait_for_selector("#answer .moved")
    page.click("#answer .card >> nth=0")
    page.wait_for_selector("#reasons .note")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in ground[4:-1].split(",")]
    assert (min(levels) > 200) is light and (max(levels) < 60) is not light
    sheet = page.locator("#why").bounding_box()
    assert sheet["y"] > 150 and sheet["y"] + sheet["height"] == pytest.approx(740)
    page.click("#close")
    page.click("#theme")
    other = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert other != ground
    page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    page.close()


def test_a_token_is_asked_for(page: Any, service: Service) -> None:
    with served(service, Token(TOKEN)) as address:
        page.goto(f"{address}#user=1001")
        page.wait_for_selector("#login[open]")
        page.keyboard.type("another one that is wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#login[open]")  # again
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer .card")
        assert TOKEN not in page.url


HOSTILE = "<img src=x onerror=alert(1)>"
_STRANGE = """[...document.querySelectorAll("*")].filter((one) =>
  one.matches("img[src=x], script:not([src])") ||
  one.getAttributeNames().some((name) => name.startsWith("on"))).length"""


def test_titles_become_no_elements(page: Any, address: str, faults: list[str]) -> None:
    """Those of items that were had, found and looked for."""

    def hostile(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {k: HOSTILE if k == "title" else hostile(of) for k, of in tree.items()}
        return [hostile(of) for of in tree] if isinstance(tree, list) else tree

    def changed(route: Any) -> None:
        answer = route.fetch()
        if "json" in answer.headers["content-type"]:
            route.fulfill(response=answer, json=hostile(answer.json()))
        else:
            route.fulfill(response=answer)

    page.route("**/explorer/*", changed)
    page.goto(f"{address}#user=1001")
    page.wait_for_selector("#answer .card")
    for within in ("#answer", "#history"):
        assert set(titles(page, within)) == {HOSTILE}
    assert page.evaluate(_STRANGE) == 0 and faults == []


def test_words_are_shaded_by_what_they_add(
    browser: Any, text_bundle: Path, faults: list[str], tmp_path: Path
) -> None:
    """On a phone; and a title is never markup."""
    options = ServerOptions(watch_s=0)
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page.on("pageerror", lambda error: faults.append(str(error)))
    with served(Service(text_bundle, options)) as address:
        page.goto(f"{address}#history=i07,i10,i05&why=i12")
        page.wait_for_selector(".words mark")
        told = Looking(Recommender.open(text_bundle)).words(
            Who(history=["i07", "i10", "i05"]), "i12"
        )
        every = [
            word
            for side in ("history", "item")
            for each in told[side]["items"]
            for word in each["words"]
        ]
        assert page.locator(".words mark").all_text_contents() == [word["word"] for word in every]
        for side in ("history", "item"):  # the largest of each side is shaded most
            said = [word["contribution"] for each in told[side]["items"] for word in each["words"]]
            at = max(range(len(said)), key=lambda place: abs(said[place]))
            shown = page.locator(f".words h4:nth-of-type({1 + (side == 'item')}) ~ .said mark").nth(
                at
            )
            kind = "for" if said[at] > 0 else "against"
            assert set(shown.get_attribute("class").split()) == {kind, "shade4"}
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.locator(".words").scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "words.png")

        told["item"]["items"][0]["words"][0]["word"] = HOSTILE
        page.route("**/explorer/words", lambda route: route.fulfill(json=told))
        page.reload()
        page.wait_for_selector(".words mark")
        assert HOSTILE in page.locator(".words mark").all_text_contents()
        assert page.locator(".words img").count() == 0 and faults == []
    page.close()
