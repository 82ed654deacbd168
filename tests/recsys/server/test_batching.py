"""Questions that come together are answered together, and too many are turned away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asked import Asking, serving

from recsys.server.batching import Batcher
from recsys.server.errors import Refused


def batcher(answer: Callable[[Sequence[int]], list[Any]], **options: Any) -> Batcher[int, int]:
    chosen = {"window": 0.01, "largest": 4, "queue": 8, "deadline": 5.0, **options}
    return Batcher(answer, pool=ThreadPoolExecutor(1), **chosen)


def test_those_that_come_within_the_window_are_one_batch() -> None:
    batches: list[list[int]] = []

    def double(questions: Sequence[int]) -> list[int]:
        batches.append(list(questions))
        return [2 * question for question in questions]

    async def ask() -> list[Any]:
        asked = batcher(double)
        first = await asyncio.gather(*(asked.ask(question) for question in range(6)))
        return [*first, *await asyncio.gather(asked.ask(10, 11))]

    assert asyncio.run(ask()) == [[0], [2], [4], [6], [8], [10], [20, 22]]
    assert batches == [[0, 1, 2, 3], [4, 5], [10, 11]]  # at most four


def test_those_that_come_while_a_batch_is_answered_make_the_next_one() -> None:
    batches, going, goes_on = [], threading.Event(), threading.Event()

    def slow(questions: Sequence[int]) -> list[int]:
        batches.append(list(questions))
        going.set()
        goes_on.wait(10)
        return list(questions)

    async def ask() -> None:
        asked = batcher(slow, window=0.0, queue=3)
        first = asyncio.ensure_future(asked.ask(1))
        await asyncio.to_thread(going.wait, 10)
        waiting = [asyncio.ensure_future(asked.ask(question)) for question in (2, 3, 4)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="3 questions wait") as caught:
            await asked.ask(5)
        assert caught.value.status == 429 and caught.value.retry_after == 1
        waiting[0].cancel()  # whoever asked has hung up
        await asyncio.sleep(0)
        goes_on.set()
        assert await first == [1]
        assert await asyncio.gather(*waiting[1:]) == [[3], [4]]

    asyncio.run(ask())
    assert batches == [[1], [3, 4]]


def test_a_question_is_given_up_at_its_deadline() -> None:
    goes_on = threading.Event()

    async def ask() -> None:
        asked = batcher(lambda questions: goes_on.wait(10) and list(questions), deadline=0.05)
        with pytest.raises(Refused, match="not answered within 50 ms") as caught:
            await asked.ask(1)
        goes_on.set()
        assert caught.value.status == 503
        assert await asked.ask(2) == [2]

    asyncio.run(ask())


def test_a_server_answers_in_batches_and_each_gets_its_own(asking: Asking) -> None:
    name = 'recsys_batch_size_sum{path="/recommend"}', 'recsys_batch_size_count{path="/recommend"}'
    before = [asking.figure(each) for each in name]
    bodies = [{"user": 1001 + number, "k": 2 + number % 2} for number in range(20)]
    alone = [asking.post("/recommend", body) for body in bodies[:3]]
    together = asking.together("/recommend", *bodies, {"user": "nobody"})
    assert [answer.status_code for answer in together] == [200] * 20 + [422]
    for answer, by_itself in zip(together, alone, strict=False):
        listed, alike = (told.json()["answers"][0]["items"] for told in (answer, by_itself))
        assert [item["item"] for item in listed] == [item["item"] for item in alike]
    for body, answer in zip(bodies, together, strict=False):
        (told,) = answer.json()["answers"]
        assert told["user"] == body["user"] and len(told["items"]) == body["k"]
    questions, batches = (asking.figure(each) - old for each, old in zip(name, before, strict=True))
    assert questions == 24 and batches < 12


def test_beyond_the_queue_requests_are_turned_away(folder: Path) -> None:
    with serving(folder, queue=2, max_batch=2) as asking:
        answers = asking.together("/recommend", *[{"user": 1001}] * 30)
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429} and statuses.count(200) >= 2
        refused = answers[statuses.index(429)]
        assert refused.headers["retry-after"] == "1"
        assert "questions wait: try again later" in refused.json()["error"]
        assert asking.figure('recsys_rejected_total{reason="queue"}') == statuses.count(429)
        assert asking.post("/recommend", {"user": 1001}).status_code == 200
