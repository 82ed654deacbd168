"""Another bundle takes the place of the first without a failed request, or is refused."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from asked import serving

from feature_store.errors import DataError
from recsys.server.live import Live


@pytest.fixture
def current(folder: Path, tmp_path: Path) -> Path:
    """A link to the bundle."""
    link = tmp_path / "current"
    link.symlink_to(folder)
    return link


def lead(link: Path, folder: Path) -> None:
    """Let a link lead elsewhere, at once."""
    aside = link.with_name("aside")
    aside.symlink_to(folder)
    aside.replace(link)


def test_requests_go_on_while_bundles_change(current: Path, folder: Path, other: Path) -> None:
    """All are answered, each by one bundle or the other, and at the end by the last one."""
    versions = {Live.open(path).version: path for path in (folder, other)}
    seen = []

    async def ask(asking: Any) -> None:
        while len(set(seen)) < 2 or seen[-1] == seen[0]:
            answer = await asking.client.post("/recommend", json={"user": 1001, "k": 3})
            assert answer.status_code == 200, answer.text
            (told,) = answer.json()["answers"]
            seen.append((told["bundle"], *(item["item"] for item in told["items"])))

    with serving(current) as asking:
        asked = asyncio.run_coroutine_threadsafe(ask(asking), asking.loop)
        while not seen and not asked.done():
            time.sleep(0.001)
        lead(current, other)
        assert asking.post("/-/reload").json()["bundle"] != seen[0][0]
        asked.result(30)
        first, last = dict.fromkeys(seen)
        assert {first[0], last[0]} == set(versions) and first[1:] != last[1:]
        assert asking.get("/readyz").json()["folder"] == str(other)
        assert asking.figure('recsys_swaps_total{result="taken"}') == 1
        assert asking.figure(f'recsys_bundle{{arm="",version="{last[0]}"}}') == 1
        assert first[0] not in asking.get("/metrics").text


def test_a_link_that_leads_elsewhere_is_followed_by_itself(current: Path, other: Path) -> None:
    with serving(current) as asking:
        swap = asking.service.swap
        assert not swap.changed()
        before = swap.live
        lead(current, other)
        watching = asyncio.run_coroutine_threadsafe(swap.watch(0.01), asking.loop)
        for _ in range(1000):
            if swap.live is not before:
                break
            asking.run(asyncio.sleep(0.01))
        watching.cancel()
        assert swap.live.bundle.folder == other and not swap.changed()


def test_a_bundle_that_must_not_be_served_is_refused_and_the_old_one_goes_on(
    current: Path, folder: Path, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(folder, tmp_path / "bad"))
    items = bad / "parts/generator/items.npy"
    items.write_bytes(items.read_bytes()[:-1] + b"?")
    with serving(current) as asking:
        version = asking.service.swap.live.version
        lead(current, bad)
        refused = asking.post("/-/reload")
        assert refused.status_code == 409
        assert "items.npy was altered after the export" in refused.json()["error"]
        assert "the old one goes on" in refused.json()["error"]
        ready = asking.get("/readyz")
        assert ready.status_code == 200 and ready.json()["bundle"] == version
        assert "was altered" in ready.json()["refused"]
        assert asking.figure("recsys_bundle_refused") == 1
        assert not asking.service.swap.changed()  # it is not tried again by itself
        (answer,) = asking.post("/recommend", {"user": 1001}).json()["answers"]
        assert answer["bundle"] == version
        current.unlink()  # between two bundles
        assert not asking.service.swap.changed()
        assert asking.post("/-/reload").status_code == 409
        current.symlink_to(folder)
        assert asking.post("/-/reload").status_code == 200
        assert "refused" not in asking.get("/readyz").json()
        assert asking.figure("recsys_bundle_refused") == 0


def test_what_was_begun_with_a_bundle_is_ended_with_it(
    current: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(current) as asking:
        before = asking.service.swap.live
        assert before.recommender is not None
        answer = before.recommender.answer

        def slowly(*of: Any, **options: Any) -> Any:
            lead(current, other)
            assert asking.service.reload()
            return answer(*of, **options)

        monkeypatch.setattr(before.recommender, "answer", slowly)
        (told,) = asking.post("/recommend", {"user": 1001}).json()["answers"]
        assert told["bundle"] == before.version != asking.service.swap.live.version


def test_a_server_of_no_bundle_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a bundle"), serving(tmp_path):
        pass
