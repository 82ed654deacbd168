"""Who works together, and who of them has ended: what transports only tell as a broken line."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from feature_store.errors import DataError

_PATIENCE = 2.0  # seconds in which a process that was killed is seen to be gone
_BROKEN = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


@dataclass(frozen=True)
class Member:
    """A process of a group."""

    host: str
    process: int

    @classmethod
    def here(cls) -> Member:
        """This one."""
        return cls(socket.gethostname(), os.getpid())

    @property
    def gone(self) -> bool:
        """Whether it has ended. Of other hosts nothing is known: then False."""
        if self.host != socket.gethostname():
            return False
        try:
            state = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return not _is_there(self.process)
        return state in "ZX"  # ended, and nobody has asked how


@contextmanager
def naming_the_lost(rank: int, members: list[Member]) -> Iterator[None]:
    """Broken lines between processes as a DataError that says which of them has ended, where that
    can be seen; `members` in the order of ranks."""
    try:
        yield
    except RuntimeError as error:
        if len(members) == 1 or not _is_broken_line(error):
            raise
        raise DataError(_told(rank, members, _lost(members))) from error


def _told(rank: int, members: list[Member], lost: list[int]) -> str:
    who = "another process has ended, on a host that this one does not see"
    if lost:
        named = [f"rank {r} (process {members[r].process} on {members[r].host})" for r in lost]
        who = f"{' and '.join(named)} {'has' if len(lost) == 1 else 'have'} ended"
    return (
        f"{who}, so that rank {rank} of {len(members)} cannot go on: what ended it is in its own "
        "output; the same command with --resume goes on from the last checkpoint"
    )


def _lost(members: list[Member]) -> list[int]:
    """Ranks that have ended, waiting until the first is seen."""
    until = time.monotonic() + _PATIENCE
    while True:
        lost = [rank for rank, member in enumerate(members) if member.gone]
        if lost or time.monotonic() > until:
            return lost
        time.sleep(0.05)


def _is_broken_line(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _BROKEN)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
