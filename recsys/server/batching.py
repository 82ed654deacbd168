"""Questions that arrive together are answered together, by one thread, while others queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, NamedTuple, TypeVar

from recsys.server.errors import Refused

Q = TypeVar("Q")
A = TypeVar("A")


class Waiting(NamedTuple, Generic[Q, A]):
    """A question, and where its answer goes."""

    question: Q
    future: asyncio.Future[A | Exception]


class _TooLate(Exception):
    """The deadline of a call has passed."""


class Batcher(Generic[Q, A]):
    """Makes batches of questions for a function that answers many at once.

    The first question waits `window` seconds for others. Those that come while a batch is being
    answered make the next one, at most `largest` of them. `answer` runs in a thread of `pool`, and
    gives for each question an answer, or the error that only this one gets. Beyond `queue`
    questions that wait new ones are refused; each is given up `deadline` seconds after it came.
    """

    def __init__(
        self,
        answer: Callable[[list[Q]], Sequence[A | Exception]],
        *,
        pool: Executor,
        window: float,
        largest: int,
        queue: int,
        deadline: float,
    ) -> None:
        self._answer, self._pool = answer, pool
        self._window, self._largest, self._queue = window, largest, queue
        self._deadline = deadline
        self._waiting: deque[Waiting[Q, A]] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    async def ask(self, *questions: Q) -> list[A | Exception]:
        """An answer for each, or its error.

        Raises Refused where too many wait (429), and where the deadline has passed (503).
        """
        if self._waiting and len(self._waiting) + len(questions) > self._queue:
            raise Refused(
                429,
                f"too many requests: {len(self._waiting)} questions wait: try again later",
                retry_after=1,
            )
        loop = asyncio.get_running_loop()
        futures = []
        for question in questions:
            futures.append(loop.create_future())
            self._waiting.append(Waiting(question, futures[-1]))
        if not self._busy:
            if len(self._waiting) >= self._largest:
                self._begin()
            elif self._timer is None:
                self._timer = loop.call_later(self._window, self._begin)
        deadline = loop.call_later(self._deadline, _give_up, futures)
        try:
            return [await future for future in futures]
        except _TooLate:
            raise Refused(
                503,
                f"not answered within {self._deadline * 1000:.0f} ms: try again later",
                retry_after=1,
            ) from None
        finally:
            deadline.cancel()
            for future in futures:
                future.cancel()

    def _begin(self) -> None:
        """Answer those that wait, unless a batch is being answered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy:
            return
        batch: list[Waiting[Q, A]] = []
        while self._waiting and len(batch) < self._largest:
            waiting = self._waiting.popleft()
            if not waiting.future.done():  # nobody waits for it any more
                batch.append(waiting)
        if not batch:
            return
        self._busy = True
        loop = asyncio.get_running_loop()
        questions = [waiting.question for waiting in batch]
        done = loop.run_in_executor(self._pool, self._answer, questions)
        done.add_done_callback(lambda done: self._end(batch, done))

    def _end(
        self, batch: list[Waiting[Q, A]], done: asyncio.Future[Sequence[A | Exception]]
    ) -> None:
        self._busy = False
        self._begin()  # the worker shall not wait for those that are written out
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        for place, waiting in enumerate(batch):
            if waiting.future.done():
                continue
            if error is not None:
                waiting.future.set_exception(error)
            else:
                waiting.future.set_result(done.result()[place])  # type: ignore[arg-type]


def _give_up(futures: Sequence[asyncio.Future[Any]]) -> None:
    """Tell whoever waits for the first that is not answered; nobody waits for the others then."""
    for future in futures:
        if not future.done():
            future.set_exception(_TooLate())
            return
