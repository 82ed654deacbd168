"""The functions of a server, whoever calls them: HTTP, MCP, a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from feature_store.errors import ConfigError
from recsys.server.adding import add
from recsys.server.arms import MAIN, Arms
from recsys.server.batching import Batcher
from recsys.server.growing import grow
from recsys.server.isolating import as_refused
from recsys.server.live import Live
from recsys.server.metrics import Metrics
from recsys.server.models import (
    Added,
    Answer,
    Events,
    Grown,
    Items,
    Ready,
    Recommend,
    Recommended,
    Score,
    Scored,
    Similar,
    SimilarAnswer,
    SimilarTo,
)
from recsys.server.options import ServerOptions
from recsys.server.recommending import Options, Wanted
from recsys.server.scoring import score
from recsys.server.showing import Showing
from recsys.server.similar import Near, similar
from recsys.server.swap import Swap
from recsys.serving.recommender import Recommender
from recsys.serving.users import KnownUsers

Q = TypeVar("Q")
A = TypeVar("A")
Work = Callable[[Live, Sequence[Q]], Sequence[A | Exception]]


class Service:
    """Answers from the bundle at a path, and from whichever takes its place."""

    def __init__(self, path: Path, options: ServerOptions, users: KnownUsers | None = None) -> None:
        self.options, self.metrics = options, Metrics()
        self.tell_others: Callable[[], None] = lambda: None  # processes that answer beside this one
        opener = partial(
            Live.open,
            signed_by=options.signed_by,
            users=users,
            measure_index=options.measure_index,
        )
        self.swap = Swap(path, opener, self.metrics)
        shares, swaps = {MAIN: 1.0}, {MAIN: self.swap}
        for arm, (share, folder) in options.arms.items():
            shares[arm], swaps[arm] = share, Swap(folder, opener, self.metrics, arm)
            shares[MAIN] -= share
        self._arms = Arms(swaps, shares, options.salt)
        self._showing: Showing | None = None
        if options.exposures is not None:
            schema = self.swap.live.bundle.schema
            self._showing = Showing(options.explore, options.exposures, schema)
        elif options.explore is not None:
            raise ConfigError("a server that explores must write down what it shows: exposures")
        self._beside: list[Recommender] = []
        if options.beside is not None:
            self._beside = [opener(options.beside).recommends()]
        # What finds items has a thread of its own, which nothing slower holds up.
        self._finding = ThreadPoolExecutor(1, "finding")
        self._others = ThreadPoolExecutor(1, "others")
        self._adding = ThreadPoolExecutor(1, "adding")
        self._growing = ThreadPoolExecutor(1, "growing")
        self._recommend = self._batcher("/recommend", self._recommended, self._finding)
        self._similar = self._batcher("/similar", similar, self._others)
        self._score = self._batcher("/score", partial(_each, score), self._others)
        self._events = self._batcher(
            "/events", partial(_each, partial(add, users, self._showing)), self._adding
        )

    def looked_at(self) -> list[Recommender]:
        """What people look into: the bundle that answers, and one beside it."""
        return [self.swap.live.recommends(), *self._beside]

    async def recommend(self, asked: Recommend) -> Recommended:
        """Items for users. Raises Refused where a single question cannot be answered."""
        options = Options.of(asked)
        if asked.requests is None:
            (answer,) = await self._recommend.ask(Wanted(asked, options))
            if isinstance(answer, Exception):
                raise answer
            self._count(answer)
            return {"answers": [answer]}
        wanted = [Wanted(question, options) for question in asked.requests]
        answers: list[Answer] = []
        for question, answer in zip(
            asked.requests, await self._recommend.ask(*wanted), strict=True
        ):
            if isinstance(answer, Exception):
                error = self._told(answer)
                answer = {"fallback": False, "items": [], "error": error}
                if question.user is not None:
                    answer["user"] = question.user
            self._count(answer)
            answers.append(answer)
        return {"answers": answers}

    async def similar(self, asked: Similar) -> SimilarTo:
        """Items near items. Raises Refused where there is only one, and it is not known."""
        given = await self._similar.ask(*(Near(item, asked.k) for item in asked.items))
        answers: list[SimilarAnswer] = []
        for item, answer in zip(asked.items, given, strict=True):
            if isinstance(answer, Exception):
                if len(asked.items) == 1:
                    raise answer
                answer = {"item": item, "items": [], "error": self._told(answer)}
            answers.append(answer)
        return {"answers": answers}

    async def score(self, asked: Score) -> Scored:
        """How likely items are for a user. Raises Refused where the ranker cannot say."""
        (scored,) = await self._score.ask(asked)
        if isinstance(scored, Exception):
            raise scored
        return scored

    async def events(self, asked: Events) -> Added:
        """Add events to the store of users. Raises Refused where there is none, or one does not
        fit, and then adds none of them."""
        (added,) = await self._events.ask(asked)
        if isinstance(added, Exception):
            raise added
        self.metrics.events("new", added["new"])
        self.metrics.events("other", added["received"] - added["new"])
        return added

    async def items(self, asked: Items) -> Grown:
        """Publish a bundle that finds further items, and answer from it. Raises Refused where the
        server takes none, and DataError where one does not fit."""

        def publish() -> Grown:
            grown = grow(self.options.accept_items, self.swap.live, asked)
            if grown["new"]:
                self.reload()
                self.tell_others()
            return grown

        return await asyncio.get_running_loop().run_in_executor(self._growing, publish)

    def reload(self) -> bool:
        """Take the bundles that lie at their paths now; False where one must not be served."""
        return all([swap.reload() for swap in self._arms.swaps.values()])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks for other bundles meanwhile, and ends what has been begun."""
        async with AsyncExitStack() as stack:
            for swap in self._arms.swaps.values():
                await stack.enter_async_context(swap.watched(self.options.watch_s))
            yield
        self.close()

    def ready(self) -> Ready:
        """What answers, and which bundle was refused since."""
        live, swaps = self.swap.live, self._arms.swaps
        ready: Ready = {
            "status": "ready",
            "bundle": live.version,
            "folder": str(live.bundle.folder),
            "since": live.since,
        }
        if len(swaps) > 1:
            ready["arms"] = {arm: swap.live.version for arm, swap in swaps.items()}
        refused = [swap.refused for swap in swaps.values() if swap.refused is not None]
        if refused:
            ready["refused"] = refused[0]
        return ready

    def waiting(self) -> dict[str, int]:
        """Questions that wait, by path."""
        return {
            "/recommend": len(self._recommend),
            "/similar": len(self._similar),
            "/score": len(self._score),
            "/events": len(self._events),
        }

    def close(self) -> None:
        """End the threads."""
        for pool in (self._finding, self._others, self._adding, self._growing):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._showing is not None:
            self._showing.close()

    def _recommended(self, live: Live, wanted: Sequence[Wanted]) -> list[Answer | Exception]:
        """By arms, whatever is live of each."""
        return self._arms.recommend(wanted, self._showing)

    def _batcher(self, path: str, work: Work[Q, A], pool: ThreadPoolExecutor) -> Batcher[Q, A]:
        def answer(questions: list[Q]) -> Sequence[A | Exception]:
            """With what is live at the beginning, to the end."""
            started = time.perf_counter()
            try:
                return work(self.swap.live, questions)
            except Exception as error:
                return [as_refused(error)] * len(questions)
            finally:
                self.metrics.batch(path, len(questions), time.perf_counter() - started)

        options = self.options
        return Batcher(
            answer,
            pool=pool,
            window=options.window_ms / 1000,
            largest=options.max_batch,
            queue=options.queue,
            deadline=options.deadline_ms / 1000,
        )

    def _count(self, answer: Answer) -> None:
        if answer["fallback"]:
            self.metrics.fallbacks.inc()

    def _told(self, error: Exception) -> str:
        self.metrics.refused.inc()
        return as_refused(error).message


def _each(work: Callable[[Live, Q], A], live: Live, asked: Sequence[Q]) -> list[A | Exception]:
    """Each by itself: it holds many already."""
    answers: list[A | Exception] = []
    for question in asked:
        try:
            answers.append(work(live, question))
        except Exception as error:
            answers.append(as_refused(error))
    return answers
