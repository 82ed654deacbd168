"""Change the code a little, and see whether a test notices: `make mutants`.

Each change is made in a copy of the tree, in which a fork of this process, that has imported what
takes long, runs the tests that hold the changed file. What they do not notice is printed at the
end, and kept beside the rest in a file of JSON lines.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recsys/layers", "recsys/objectives", "recsys/evaluation", "recsys/lists")
PARTS = (
    "feature_store",
    "recsys",
    "pipelines",
    "benchmarks",
    "tests",
    "pyproject.toml",
    "requirements",
)
BY_HAND = Path(__file__).with_name("by_hand.toml")
HEAVY = (
    "torch",
    "torchrec",
    "pandas",
    "scipy.sparse",
    "sklearn.decomposition",
    "duckdb",
    "ibis",
    "hypothesis",
    "pydantic",
    "pytest",
    "pyarrow.parquet",
    "matplotlib",
    "faiss",
    "optuna",
)
# The tests of a package, those that are quick and near first.
TESTS = {
    "recsys/layers": [
        "tests/recsys/layers",
        "tests/recsys/retrievers/test_hstu.py",
        "tests/recsys/retrievers/test_graph.py",
        "tests/recsys/retrievers/test_multi_interest.py",
        "tests/recsys/retrievers/test_ada_retrieval.py",
        "tests/recsys/retrievers/test_sequential.py",
    ],
    "recsys/objectives": [
        "tests/recsys/objectives",
        "tests/recsys/retrievers/test_sequential.py",
        "tests/recsys/retrievers/test_two_tower.py",
    ],
    "recsys/evaluation": ["tests/recsys/evaluation"],
    "recsys/lists": [
        "tests/recsys/lists",
        "tests/recsys/evaluation/test_evaluator.py",
        "tests/recsys/retrievers/test_multi_interest.py",
        "tests/recsys/retrievers/test_ada_retrieval.py",
    ],
}
Outcome = Literal["killed", "survived", "hung", "stale"]


@dataclass(frozen=True)
class Mutant:
    """A file's source before, and changed, None where the change has no place any more; and its
    tests."""

    file: str
    what: str
    before: str
    source: str | None
    tests: Sequence[str]

    def difference(self) -> str:
        """The lines that differ."""
        before, after = self.before.splitlines(), (self.source or "").splitlines()
        lines = list(difflib.unified_diff(before, after, n=0))[3:]
        return " ".join(" ".join(line.split()) for line in lines)[:300]


def by_hand() -> Iterator[Mutant]:
    """The changes of `by_hand.toml`."""
    for entry in tomllib.loads(BY_HAND.read_text())["mutant"]:
        source = (ROOT / entry["file"]).read_text()
        fits = source.count(entry["old"]) == 1
        changed = source.replace(entry["old"], entry["new"]) if fits else None
        yield Mutant(entry["file"], entry["what"], source, changed, entry["tests"])


def proposed(python: str, seed: int, modules: Sequence[str]) -> list[Mutant]:
    """Changes that cosmic-ray makes, in its own environment, in random order."""
    files = sorted(
        path.relative_to(ROOT).as_posix()
        for module in modules
        for path in ([ROOT / module] if module.endswith(".py") else (ROOT / module).rglob("*.py"))
    )
    command = [python, str(Path(__file__).with_name("propose.py")), str(seed), *files]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    before = {file: (ROOT / file).read_text() for file in files}
    mutants = []
    for line in done.stdout.splitlines():
        change = json.loads(line)
        file, what = change["file"], f"{change['operator']} at {change['line']}"
        mutants.append(Mutant(file, what, before[file], change["source"], tests_of(file)))
    random.Random(seed).shuffle(mutants)
    return mutants


def tests_of(file: str) -> list[str]:
    """The tests that hold a file, that of its own name first."""
    package = str(Path(file).parent)
    tests = TESTS.get(package, [f"tests/{package}"])
    own = Path(f"tests/{package}/test_{Path(file).stem}.py")
    first = [own.as_posix()] if (ROOT / own).exists() else []
    return [path for path in (*first, *tests) if (ROOT / path).exists()]


class Copy:
    """A copy of the tree, in which files are changed one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._passes: dict[tuple[str, ...], bool] = {}
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "results")
                shutil.copytree(source, folder / part, ignore=ignore)
            else:
                shutil.copy(source, folder / part)

    def judge(self, mutant: Mutant, seconds: float) -> tuple[Outcome, float]:
        """Whether a test fails with the change, and how long it took to see; stale where there is
        nothing to change, or the tests fail as it is."""
        tests = tuple(mutant.tests)
        if tests not in self._passes:
            self._passes[tests] = self.run(tests, 5 * seconds) == 0
        if mutant.source is None or not self._passes[tests]:
            return "stale", 0.0
        path, started = self.folder / mutant.file, time.monotonic()
        kept = path.read_text()
        path.write_text(mutant.source)
        try:
            status = self.run(mutant.tests, seconds)
        finally:
            path.write_text(kept)
        outcome: Outcome = "hung" if status is None else "killed" if status else "survived"
        return outcome, time.monotonic() - started

    def run(self, tests: Sequence[str], seconds: float) -> int | None:
        """What a fork says that runs the tests; None where it takes too long."""
        child = os.fork()
        if not child:
            os.setsid()
            try:
                os._exit(self._tests(tests))
            except BaseException:
                os._exit(1)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def _tests(self, tests: Sequence[str]) -> int:
        import pytest

        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        os.environ["PYTHONPATH"] = str(self.folder)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--basetemp", "tmp"]
        return int(pytest.main([*options, *tests]))


def main() -> int:
    """1 where a change was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=PACKAGES, help="packages or files")
    parser.add_argument("--by-hand", action="store_true", help="only the changes of by_hand.toml")
    parser.add_argument("--what", default="", help="only changes whose description holds this")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=".venv-mutants/bin/python", help="with cosmic-ray")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="is added to")
    args = parser.parse_args()
    began = time.monotonic()
    mutants = list(by_hand())
    if not args.by_hand:
        known = [mutant for mutant in mutants if mutant.file.startswith(tuple(args.modules))]
        mutants = [*known, *proposed(args.python, args.seed, args.modules)]
    mutants = [mutant for mutant in mutants if args.what in mutant.what]
    sys.dont_write_bytecode = True  # a change within a second would not be seen
    for module in HEAVY:
        importlib.import_module(module)
    survivors, tried = [], 0
    with tempfile.TemporaryDirectory() as name, args.out.open("a") as out:
        copy = Copy(Path(name) / "copy")
        for mutant in mutants:
            if time.monotonic() - began > 60 * args.minutes:
                break
            outcome, seconds = copy.judge(mutant, seconds=120)
            tried += 1
            line = {"file": mutant.file, "what": mutant.what, "outcome": outcome}
            line |= {"seconds": round(seconds, 1), "change": mutant.difference()}
            print(json.dumps(line), file=out, flush=True)
            print(f"{outcome:8} {seconds:5.1f} s  {mutant.file}: {mutant.what}", flush=True)
            if outcome in ("survived", "stale"):
                survivors.append(line)
    print(f"{tried} of {len(mutants)} tried, {len(survivors)} not noticed")
    for line in survivors:
        print(f"{line['file']}: {line['what']}: {line['change']}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
