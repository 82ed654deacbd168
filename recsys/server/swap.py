"""Which bundle answers, and how another takes its place without a failed request."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from feature_store.errors import RecsysError
from recsys.server.isolating import log_fault
from recsys.server.live import Live
from recsys.server.logs import log, warn
from recsys.server.metrics import Metrics
from recsys.serving.manifest import MANIFEST

_UNUSED_AFTER = 5.0  # seconds: what was begun with the old bundle has ended by then


class _Seen(NamedTuple):
    """What tells one bundle at a path from the next: where the path leads, and its manifest."""

    folder: Path
    inode: int
    changed: int

    @classmethod
    def at(cls, path: Path) -> _Seen | None:
        """None where there is no bundle at present, as between two renames."""
        try:
            folder = path.resolve(strict=True)
            about = (folder / MANIFEST).stat()
        except (OSError, RuntimeError):
            return None
        return cls(folder, about.st_ino, about.st_mtime_ns)


async def aside(work: Callable[[], bool]) -> bool:
    """What a function gives in a thread of its own, which no end of the process waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def tell(given: bool) -> None:
        if not done.done():
            done.set_result(given)

    def run() -> None:
        given = work()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, given)

    threading.Thread(target=run, daemon=True).start()
    return await done


class Swap:
    """Holds what is `live`. Whoever answers takes it once, and answers with that to the end; what
    was live before goes when nobody answers with it any more.

    Another bundle is opened and verified aside; where that fails the old one goes on, and `refused`
    says why. A bundle that was refused is not tried again by itself before it has changed.
    """

    def __init__(
        self,
        path: Path,
        open_bundle: Callable[[Path], Live],
        metrics: Metrics,
        arm: str = "",
    ) -> None:
        self._path, self._open, self._metrics, self._arm = path, open_bundle, metrics, arm
        self._one_at_a_time = threading.Lock()
        self._seen = _Seen.at(path)
        self.refused: str | None = None
        self.live = open_bundle(path if self._seen is None else self._seen.folder)
        metrics.serves(self.live.version, arm)

    def reload(self) -> bool:
        """Open what lies at the path now, and let it answer; False where it is refused."""
        with self._one_at_a_time:
            seen, started = _Seen.at(self._path), time.monotonic()
            self._seen = seen
            try:
                live = self._open(self._path if seen is None else seen.folder)
            except RecsysError as error:
                self._refuse(str(error))
                return False
            except Exception as error:
                log_fault(error)
                self._refuse(f"it cannot be opened ({type(error).__name__})")
                return False
            before, self.live, self.refused = self.live, live, None
            self._metrics.serves(live.version, self._arm)
            self._metrics.offered("taken")
            collecting = threading.Timer(_UNUSED_AFTER, gc.collect)
            collecting.daemon = True
            collecting.start()
            log(
                "bundle taken",
                bundle=live.version,
                before=before.version,
                seconds=round(time.monotonic() - started, 3),
            )
            return True

    def changed(self) -> bool:
        """Whether another bundle lies at the path than the one last tried."""
        seen = _Seen.at(self._path)
        return seen is not None and seen != self._seen

    @asynccontextmanager
    async def watched(self, seconds: float) -> AsyncIterator[None]:
        """Looks for another bundle every so many seconds; never, if there are none."""
        watching = asyncio.create_task(self.watch(seconds)) if seconds else None
        yield
        if watching is not None:
            watching.cancel()

    async def watch(self, seconds: float) -> None:
        """Look for another bundle again and again, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            if await aside(self.changed):
                await aside(self.reload)

    def _refuse(self, why: str) -> None:
        self.refused = why
        self._metrics.offered("refused")
        warn("bundle refused", reason=why, goes_on=self.live.version)
