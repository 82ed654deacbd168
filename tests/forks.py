"""`recsys ...` in processes of its own, forked from a program that has imported everything: imports
take longer than what tests ask of them.

Started as a program, it reads requests from its input, one JSON line each, and answers with the ids
of the processes that it forks for one, and then, once they have ended, with how.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ended:
    """How processes have ended, each with a status as of the shell, or minus a signal."""

    codes: list[int]
    out: str
    err: str


class Forks:
    """Starts them; `close` ends those that are left."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # with its forks, to be ended together
        )

    def start(self, *words: object, processes: int = 1) -> list[int]:
        """Begin `recsys WORDS` in so many processes, which know of each other as torchrun's do;
        returns their ids."""
        assert self._program.stdin is not None
        request = {"words": [*map(str, words)], "processes": processes}
        self._program.stdin.write(json.dumps(request) + "\n")
        self._program.stdin.flush()
        return self._answer()  # type: ignore[no-any-return]

    def wait(self) -> Ended:
        """Until those that were started last have ended."""
        return Ended(**self._answer())

    def recsys(self, *words: object, processes: int = 1) -> Ended:
        """Start them, and wait."""
        self.start(*words, processes=processes)
        return self.wait()

    def close(self) -> None:
        """End the program and whatever it has started."""
        os.killpg(self._program.pid, signal.SIGKILL)
        self._program.communicate()

    def _answer(self) -> Any:
        assert self._program.stdout is not None
        return json.loads(self._program.stdout.readline())


def _become(words: list[str], rank: int, world: int, port: int, folder: Path) -> None:
    """Be `recsys WORDS`, and end."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}{rank}", os.O_WRONLY | os.O_CREAT), number)
    if world > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv, code = ["recsys", *words], 70
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryDirectory() as name, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port, world, folder = free.getsockname()[1], asked["processes"], Path(name)
            free.close()
            children = []
            for rank in range(world):
                child = os.fork()
                if not child:
                    _become(asked["words"], rank, world, port, folder)
                children.append(child)
            print(json.dumps(children), flush=True)
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            told = {
                name: "".join((folder / f"{name}{rank}").read_text() for rank in range(world))
                for name in ("out", "err")
            }
            print(json.dumps({"codes": codes, **told}), flush=True)


if __name__ == "__main__":
    from pipelines import cli

    for module in (
        "pipelines.run",
        "pipelines.cli.printing",
        "recsys.rankers.dcn",
        "recsys.retrievers.item_knn",
        "recsys.retrievers.sasrec",
    ):
        import_module(module)
    _serve()
