"""Does any parser of ours answer bytes of strangers with anything but a line?

Each of `benchmarks.faults.parsers` is given bytes that are changed again and again, from whole ones
on, for so many seconds, in a process of its own. A finding is an error that no user should see, one
whose line is none, a read that takes more than five seconds of a core, and one that takes more than
1 GB of memory; of each kind the first is kept in the folder of `--keep`, as a file.
What a reader promises is that of its callers, who print the errors of this project in one line.

With `atheris` installed (beside the project, from PyPI), libFuzzer chooses the bytes by what they
reach in our code; without it they are changed at random.

`python -m benchmarks.fuzz --seconds 120`; `--target config delta` for these alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.faults.parsers import Target

_OURS = ("feature_store", "recsys", "pipelines", "tomllib", "json")
_SLOW, _LARGE = 5.0, 1 << 20  # seconds, and kB, of one read
_LENGTH = 1 << 14  # bytes that libFuzzer grows its inputs to


class Fuzzing:
    """Gives bytes to a target and keeps what it finds, by kind."""

    def __init__(self, target: Target, place: Path, most_kb: int = _LARGE) -> None:
        self.target, self.place, self.most_kb = target, place, most_kb
        self.runs, self.found = 0, dict[str, bytes]()
        self._read(target.seeds[0], emptied(place))  # what is made once costs seconds at first

    def give(self, data: bytes) -> None:
        """Read them once."""
        self.runs += 1
        before, started = _peak_kb(), time.process_time()
        kind = self._read(data, emptied(self.place))
        if time.process_time() - started > _SLOW:
            kind = kind or "slow"
        if _peak_kb(anew=False) - before > self.most_kb:
            kind = kind or "large"
        if kind is not None:
            self.found.setdefault(kind, data)

    def _read(self, data: bytes, place: Path) -> str | None:
        try:
            self.target.read(data, place)
        except self.target.errors as error:
            return None if "\n" not in str(error) else f"no line: {type(error).__name__}"
        except (Exception, RecursionError) as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/lib/" not in f[0]]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
            return f"{type(error).__name__} at {where}: {error!s:.200}".replace("\n", " ")
        return None


def emptied(place: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def _peak_kb(*, anew: bool = True) -> int:
    """The most memory that this process has had, counted anew from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def changed(seeds: tuple[bytes, ...], draw: random.Random) -> Iterator[bytes]:
    """The seeds, and without end bytes in which something else stands at a place or two."""
    from benchmarks.faults.hostile import HOSTILE

    yield from seeds
    while True:
        data = draw.choice(seeds)
        for _ in range(draw.randint(1, 3)):
            begin = draw.randint(0, len(data))
            end = begin + draw.choice((0, 0, 1, 3, 99))
            data = data[:begin] + draw.choice([*HOSTILE, draw.randbytes(2)]) + data[end:]
        yield data


def at_random(fuzzing: Fuzzing, seconds: float, seed: int = 0) -> None:
    """Give what is changed at random."""
    until = time.monotonic() + seconds
    for data in changed(fuzzing.target.seeds, random.Random(seed)):
        fuzzing.give(data)
        if time.monotonic() > until:
            return


def _guided(atheris: Any, fuzzing: Fuzzing, seconds: float, end: Callable[[], None]) -> None:
    """Give what libFuzzer asks for; it never returns."""
    corpus = fuzzing.place.with_name("corpus")
    corpus.mkdir()
    for number, data in enumerate(fuzzing.target.seeds):
        (corpus / str(number)).write_bytes(data)
    until = time.monotonic() + seconds

    def give(data: bytes) -> None:
        if time.monotonic() > until:
            end()
        fuzzing.give(data)

    flags = [f"-max_len={_LENGTH}", "-timeout=60", "-rss_limit_mb=6000", "-verbosity=0"]
    prefix = f"-artifact_prefix={fuzzing.place.parent}/"
    atheris.Setup([sys.argv[0], *flags, prefix, str(corpus)], give)
    atheris.Fuzz()


def targets() -> dict[str, Target]:
    """All of them, imported so that libFuzzer sees what they reach, where it is there."""
    guide = importlib.import_module("atheris").instrument_imports if _guides() else None
    with nullcontext() if guide is None else guide(include=list(_OURS)):
        known: dict[str, Target] = importlib.import_module("benchmarks.faults.parsers").TARGETS
    return known


def _in_child(target: Target, seconds: float, seed: int, told: Path) -> None:
    """Fuzz a target and write what it found, in this process, which ends with it."""
    fuzzing = Fuzzing(target, told.parent / "place")

    def end() -> None:
        found = {kind: data.hex() for kind, data in fuzzing.found.items()}
        told.write_text(json.dumps({"runs": fuzzing.runs, "found": found}))
        os._exit(0)

    if _guides():
        _guided(importlib.import_module("atheris"), fuzzing, seconds, end)
    at_random(fuzzing, seconds, seed)
    end()


def _guides() -> bool:
    return importlib.util.find_spec("atheris") is not None


def fuzz(target: Target, seconds: float, seed: int) -> dict[str, Any]:
    """Fuzz a target in a process of its own: how often it was given bytes, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        if (child := os.fork()) == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            try:
                _in_child(target, seconds, seed, told)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not told.exists():  # ended by a signal, or by libFuzzer: what it was given last
            left = sorted(p for p in Path(folder).glob("*-*") if p.is_file())
            data = left[0].read_bytes().hex() if left else ""
            return {"runs": 0, "found": {f"ended with {status}": data}}
        outcome: dict[str, Any] = json.loads(told.read_text())
        return outcome


def keep(found: dict[str, str], name: str, folder: Path) -> None:
    """Write the bytes of what was found, and say what that is."""
    for kind, data in found.items():
        content = bytes.fromhex(data)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name.replace(' ', '_')}-{hashlib.sha256(content).hexdigest()[:12]}"
        path.write_bytes(content)
        print(f"{name}: {kind}: {path}", file=sys.stderr)


def main() -> None:
    """Fuzz and print one JSON line."""
    known = targets()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", nargs="+", choices=known, default=list(known))
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    args = parser.parse_args()
    runs, findings = dict[str, int](), dict[str, list[str]]()
    for name in args.target:
        outcome = fuzz(known[name], args.seconds, args.seed)
        keep(outcome["found"], name, args.keep)
        runs[name] = outcome["runs"]
        if outcome["found"]:
            findings[name] = sorted(outcome["found"])
    how = {"guided": _guides(), "seconds_each": args.seconds}
    print(json.dumps({"benchmark": "fuzz", **how, "runs": runs, "findings": findings}))


if __name__ == "__main__":
    main()
