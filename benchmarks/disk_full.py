"""What does a disk that is full leave of a small job, wherever it fills up?

The steps of `benchmarks.kill_points`, each once for every point at which it changes the disk: from
that point on nothing more can be written, nor made, nor renamed. `untold` counts tries that do not
end with status 1 and one line that says why; `left_behind` those after which something is there
that was not before, or is half there; and `differ` those after which, with room again, the step
does not leave what it leaves undisturbed.

`python -m benchmarks.disk_full`; `--every 3` tries every third point, `--step training` one step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.children import Ended, in_child
from benchmarks.faults.points import full_from
from benchmarks.faults.steps import STEPS, copied
from benchmarks.faults.trees import differing, facts, hidden
from benchmarks.faults.undisturbed import Undisturbed, undisturbed, watched

_REASONS = ("No space left", "is full", "make room", "cannot be written")


class Try(NamedTuple):
    """What became of a step on a disk that filled up, and of the same step with room again."""

    untold: str
    left: list[str]
    wrong: list[str]


def attempt(whole: Undisturbed, point: int, root: Path) -> Try:
    """Let the disk be full from a point on."""
    place, temporary = root / "try", root / "temporary"
    for folder in (place, temporary):
        shutil.rmtree(folder, ignore_errors=True)
    copied(whole.start, place)
    before = facts(place)
    work = watched(whole.step, full_from(point), [place, temporary], removals=False)
    ended = in_child(work, place, temporary)
    left = [*hidden(place), *(path.name for path in temporary.iterdir())]
    if ended.status == 0:  # what it could do without is missing, nothing else
        return Try("", left, differing(whole.facts, facts(place))[0])
    lost, _ = differing(before, facts(place))
    again = in_child(whole.step.again, place, temporary)
    wrong, more = differing(whole.facts, facts(place))
    wrong = [*wrong, *([again.told[-600:]] if again.status else [])]
    return Try(_untold(ended), [*left, *more], [*wrong, *lost])


def _untold(ended: Ended) -> str:
    """What was said, where that is not one line that says why."""
    last = ended.told.rstrip().splitlines()[-1:] or [""]
    one_line = last[0].startswith("recsys: ") and any(word in last[0] for word in _REASONS)
    plain = "Traceback" not in ended.told and "fault of the program" not in ended.told
    return "" if ended.status == 1 and one_line and plain else f"{ended.status}: {ended.told}"


def measure(root: Path, every: int, names: Collection[str]) -> dict[str, Any]:
    """Try every so-manieth point of the steps of these names."""
    counts = Counter[str]()
    for whole in undisturbed(root, names):
        for point in range(1, whole.points + 1, every):
            tried = attempt(whole, point, root)
            counts["tried"] += 1
            counts["untold"] += bool(tried.untold)
            counts["left_behind"] += bool(tried.left)
            counts["differ"] += bool(tried.wrong)
            if tried.untold or tried.left or tried.wrong:
                print(f"{whole.step.name}, point {point}: {tried}", file=sys.stderr)
    return {name: counts[name] for name in ("tried", "untold", "left_behind", "differ")}


def main() -> None:
    """Try and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="try every so-manieth point")
    names = [step.name for step in STEPS]
    parser.add_argument("--step", nargs="+", choices=names, default=names, help="these alone")
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = measure(Path(folder), args.every, args.step)
    told |= {"seconds": round(time.perf_counter() - started)}
    print(json.dumps({"benchmark": "disk_full", **told}))


if __name__ == "__main__":
    main()
