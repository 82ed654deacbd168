"""What is left of a small job that is killed anywhere, and begun again?

A log is ingested, and a day appended to it; it is made into examples, trained on, measured,
exported and published, then grows by new users and items and is trained on again. Beside it a
ranker learns clicks and what follows them with tables whose rows go from id to id, of users without
a vocabulary; and `recsys daily` takes a first week and a day in, up to the delta. Each step is
killed somewhere, with SIGKILL or at times SIGTERM: at one of the points at which it changes the
disk (see `benchmarks.faults.points`), or after a random part of its time. Then it is begun again,
as a user would, and what it leaves is compared with what it left undisturbed: `differ` counts tries
after which figures, checkpoints, ids, bundles or any other file are not the same, `left_behind`
those after which there are files that an undisturbed run does not leave (of SIGTERM also before it
is begun again), temporary ones included, and `lost_keys` ids that have another row or none. A step
that ends before it is killed is no try.

`python -m benchmarks.kill_points --tries 1000`; `--step ingest training` for these alone. Tries are
deterministic by `--seed`, but for kills after a time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.children import in_child
from benchmarks.faults.points import kill_at
from benchmarks.faults.steps import STEPS, copied, lost_keys
from benchmarks.faults.trees import differing, facts, hidden
from benchmarks.faults.undisturbed import Undisturbed, undisturbed, watched

_SIGTERMS = 0.2  # of the tries
_AT_POINTS = 0.6


class Try(NamedTuple):
    """What became of a step that was killed and begun again."""

    killed: bool
    wrong: list[str]
    left: list[str]
    lost: int
    told: str


def attempt(whole: Undisturbed, root: Path, draw: random.Random) -> Try:
    """Kill a step somewhere, and begin it again."""
    step, place, temporary = whole.step, root / "try", root / "temporary"
    for folder in (place, temporary):
        shutil.rmtree(folder, ignore_errors=True)
    copied(whole.start, place)
    number = signal.SIGTERM if draw.random() < _SIGTERMS else signal.SIGKILL
    point, after = draw.randint(1, whole.points), draw.uniform(0, whole.seconds)
    if draw.random() < _AT_POINTS:
        work = watched(step, kill_at(point, number), [place, temporary])
        ended, where = in_child(work, place, temporary), f"{number.name} at point {point}"
    else:
        ended = in_child(step.work, place, temporary, kill_after=after, number=number)
        where = f"{number.name} after {after:.3f} s"
    killed = ended.status != 0
    left = []
    if ended.status == 143:  # asked to end, it has cleared away what was half written
        left += [*hidden(place), *(path.name for path in temporary.iterdir())]
    again = in_child(step.again, place, temporary)
    wrong, more = differing(whole.facts, facts(place))
    left += [*more, *(path.name for path in temporary.iterdir())]
    if again.status or ended.status not in (0, 143, -number):
        wrong = [*wrong, f"status {ended.status}, then {again.status}: {again.told[-600:]}"]
    return Try(killed, wrong, left, lost_keys(whole.end, place, step), f"{step.name}: {where}")


def measure(
    root: Path, tries: int, seed: int, names: Collection[str], until: float = math.inf
) -> dict[str, Any]:
    """Try so many times, or until the monotonic clock says so, at the steps of these names."""
    steps, draw = undisturbed(root, names), random.Random(seed)
    weights = [whole.step.weight for whole in steps]
    counts, of_step = Counter[str](), Counter[str]()
    while counts["tried"] < tries and time.monotonic() < until:
        (whole,) = draw.choices(steps, weights)
        tried = attempt(whole, root, draw)
        if not tried.killed:
            counts["ended_before"] += 1
        else:
            counts["tried"] += 1
            of_step[whole.step.name] += 1
        counts["differ"] += bool(tried.wrong)
        counts["left_behind"] += bool(tried.left)
        counts["lost_keys"] += tried.lost
        if tried.wrong or tried.left or tried.lost:
            print(f"{tried.told}: differ {tried.wrong}, left {tried.left}", file=sys.stderr)
    figures = ("tried", "differ", "left_behind", "lost_keys", "ended_before")
    return {name: counts[name] for name in figures} | {"tries_of": dict(of_step)}


def main() -> None:
    """Try and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so many")
    names = [step.name for step in STEPS if step.weight]
    parser.add_argument("--step", nargs="+", choices=names, default=names, help="these alone")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = measure(Path(folder), args.tries, args.seed, args.step, started + 60 * args.minutes)
    told |= {"seed": args.seed, "seconds": round(time.monotonic() - started)}
    print(json.dumps({"benchmark": "kill_points", **told}))


if __name__ == "__main__":
    main()
