"""What is said of files that were truncated or altered, whichever they are?

Every file that a finished small job has left (raw log, event log, examples, ids, checkpoints,
figures, bundle) is damaged in turn: cut in half, emptied, a bit flipped in the middle or near its
end, and Parquet also replaced by a table of another schema; then the verbs that read it are run.
A verb may go on where it makes the file anew or does not need it; else it has to end with status 1
and one line. `untold` counts tries that end otherwise, `unnamed` those whose line does not name the
file, nor a folder that it lies in.

`python -m benchmarks.broken_files`; `--every 5` damages every fifth file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults.children import Ended, in_child
from benchmarks.faults.steps import CONFIG, RUN, Work, copied, verb
from benchmarks.faults.undisturbed import undisturbed

Damage = Callable[[Path], None]


def halve(path: Path) -> None:
    """As a copy that was stopped."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    """As a disk that was full."""
    path.write_bytes(b"")


def flip(where: float) -> Damage:
    """One bit, so far into the file."""

    def damage(path: Path) -> None:
        contents = bytearray(path.read_bytes())
        contents[int(len(contents) * where)] ^= 4
        path.write_bytes(contents)

    return damage


def another(path: Path) -> None:
    """A table that somebody put there."""
    pq.write_table(pa.table({"a": [1, 2, 3]}), path)


DAMAGES: dict[str, Damage] = {
    "halved": halve,
    "empty": empty,
    "flipped": flip(0.5),
    "flipped at the end": flip(0.97),
    "of another schema": another,
}
VERBS: dict[str, tuple[str, ...]] = {
    "ingest": ("ingest", CONFIG, "--replace"),
    "train": ("train", CONFIG, "--fresh"),
    "resume": ("train", CONFIG, "trainer.epochs=4", "--resume"),
    "evaluate": ("evaluate", RUN),
    "export": ("export", RUN),
    "verify": ("bundle", "verify", RUN),
    "recommend": ("recommend", RUN, "--user", "u03"),
}
READ_BY = {
    "raw": ("ingest",),
    "examples": ("evaluate", "resume"),
    "checkpoints": ("evaluate", "resume"),
    "bundles": ("verify", "recommend"),
    "per_user": ("export",),
}
"""By a folder above the file; other verbs by default."""


def verbs_of(name: str) -> tuple[str, ...]:
    """The verbs that read a file."""
    for part in Path(name).parts:
        if part in READ_BY:
            return READ_BY[part]
    return ("train", "evaluate") if "/store/" in f"/{name}" else ("export", "evaluate")


def cases(folder: Path, every: int) -> Iterator[tuple[str, str, str]]:
    """Names of files, damages, verbs."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    for name in [name for name in names if not name.endswith(".lock")][::every]:
        for damage in DAMAGES:
            if damage != "of another schema" or name.endswith(".parquet"):
                yield from ((name, damage, verb) for verb in verbs_of(name))


def fault_of(ended: Ended, name: str) -> str:
    """What is wrong with what was said: untold, unnamed, or nothing."""
    if ended.status == 0:
        return ""
    lines = [line for line in ended.told.splitlines() if line.startswith("recsys: ")]
    plain = "Traceback" not in ended.told and "fault of the program" not in ended.told
    told = len(lines) == 1 or "NOT WELL" in ended.told  # a line for each part
    if ended.status != 1 or not told or not plain:
        return "untold"
    places = {Path(name).name, *map(str, Path(name).parents)} - {".", "runs"}
    return "" if any(place in ended.told for place in places) else "unnamed"


def measure(root: Path, every: int) -> dict[str, Any]:
    """Damage every so-manieth file in every way."""
    (whole,) = undisturbed(root, ["export"])
    works: dict[str, Work] = {name: verb(*words) for name, words in VERBS.items()}
    counts = Counter[str]()
    place, temporary = root / "try", root / "temporary"
    for name, damage, asked in cases(whole.end, every):
        for folder in (place, temporary):
            shutil.rmtree(folder, ignore_errors=True)
        copied(whole.end, place)
        DAMAGES[damage](place / name)
        ended = in_child(works[asked], place, temporary)
        counts["tried"] += 1
        counts["told"] += ended.status != 0
        if fault := fault_of(ended, name):
            counts[fault] += 1
            print(f"{fault}: {asked}, {name} {damage}: {ended.told[-700:]}", file=sys.stderr)
    return {name: counts[name] for name in ("tried", "told", "untold", "unnamed")}


def main() -> None:
    """Try and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="damage every so-manieth file")
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = measure(Path(folder), args.every)
    told |= {"seconds": round(time.perf_counter() - started)}
    print(json.dumps({"benchmark": "broken_files", **told}))


if __name__ == "__main__":
    main()
