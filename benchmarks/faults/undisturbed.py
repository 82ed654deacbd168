"""Every step of the small job as it goes without a fault, and where it can be disturbed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.children import in_child
from benchmarks.faults.points import Fault, Points
from benchmarks.faults.steps import Step, Work, begin, copied, needed
from benchmarks.faults.trees import Facts, differing, facts
from feature_store.engine import Engine

_FIRST = ("pipelines.cli", "pipelines.ingest")  # what every child needs


class Undisturbed(NamedTuple):
    """A step as it goes without a fault: the folder that it starts from, the one that it
    leaves, what that holds, the points and the seconds that it takes."""

    step: Step
    start: Path
    end: Path
    facts: Facts
    points: int
    seconds: float


def watched(
    step: Step,
    fault: Fault,
    folders: list[Path],
    told: Path | None = None,
    *,
    removals: bool = True,
) -> Work:
    """The work of a step with its points counted; their number, and the modules that it has
    imported, are written to a file."""

    def work() -> None:
        points = Points(folders, fault, removals=removals)
        try:
            step.work()
        finally:
            if told is not None:
                told.write_text("\n".join([str(points.count), *sys.modules]))

    return work


def undisturbed(root: Path, names: Collection[str]) -> list[Undisturbed]:
    """The steps of these names, behind those before them; each twice, to see that it repeats."""
    for module in _FIRST:
        importlib.import_module(module)
    Engine().close()
    done: dict[str, Undisturbed] = {}
    (start := root / "start").mkdir()
    begin(start)
    for step in needed(names):
        before = root / f"before {step.name}"
        copied(start if step.after is None else done[step.after].end, before)
        step.prepare(before)
        ends, counted = [root / f"{step.name} {n}" for n in (1, 2)], root / "counted.txt"
        for end in ends:
            copied(before, end)
            temporary = root / "temporary"
            ended = in_child(
                watched(step, lambda _: None, [end, temporary], counted), end, temporary
            )
            if ended.status:
                raise SystemExit(f"{step.name} fails undisturbed: {ended.told}")
        number, *modules = counted.read_text().splitlines()
        for module in modules:  # so that later children need not
            with suppress(ImportError):
                importlib.import_module(module)
        here, there = map(facts, ends)
        if here != there:
            raise SystemExit(f"{step.name} does not repeat: {differing(here, there)}")
        done[step.name] = Undisturbed(step, before, ends[0], here, int(number), ended.seconds)
        print(f"{step.name}: {number} points, {ended.seconds:.2f} s", file=sys.stderr)
    return [whole for name, whole in done.items() if name in names]
