"""A small job in steps, each from what the one before has left: what users would type, and type
again after it was stopped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from benchmarks.faults.configs import TREES

CONFIG, RUN, LIVE = "tiny.toml", "runs/tiny", "live"
SHOP, SHOP_RUN = "shop.toml", "runs/shop"
Work = Callable[[], None]


class Step(NamedTuple):
    """A step of the work: what it starts from, and how it is begun and begun again; the folders of
    ids that it must not lose."""

    name: str
    after: str | None
    work: Work
    again: Work
    prepare: Callable[[Path], None] = lambda folder: None
    vocabularies: tuple[str, ...] = ()
    weight: float = 1.0  # of the tries: those that take long are fewer


def verb(*words: str) -> Work:
    """A verb of the command line."""

    def work() -> None:
        from pipelines import cli

        sys.argv = ["recsys", *words]
        cli.main()

    return work


def write_raw(folder: Path, part: int, users: range, items: int) -> None:
    """A part of a log: everybody walks around the ring of items."""
    random, rows = np.random.default_rng(part), []
    for user in users:
        item, at = int(random.integers(items)), datetime(2024, 1 + part, 1)
        for _ in range(7):
            rows.append((f"u{user:02d}", f"i{item:02d}", at))
            item, at = (item + 7) % items, at + timedelta(hours=int(random.integers(1, 99)))
    names = ("user", "item", "time")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    (folder / "raw").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({k: list(v) for k, v in columns.items()}), folder / f"raw/{part}.parquet"
    )


def begin(folder: Path) -> None:
    """The configs, and a log of its own."""
    write_raw(folder, 0, range(16), 12)
    for name, tree in TREES.items():
        (folder / f"{name}.toml").write_text(tomli_w.dumps(tree))


def make_examples(config: str) -> Work:
    """What `recsys train` does first, with errors told as verbs tell them."""

    def work() -> None:
        from feature_store.errors import RecsysError
        from pipelines.run import resolve
        from recsys.runs.prepare import prepare

        try:
            prepare(resolve(Path(config)))
        except RecsysError as error:
            sys.exit(f"recsys: {error}")

    return work


def _grow(folder: Path) -> None:
    write_raw(folder, 1, range(8, 24), 18)


DAYS = "store=days"
FIRST = verb("ingest", CONFIG, DAYS, "data.path=raw/0.parquet")
APPEND = verb("ingest", CONFIG, DAYS, "data.path=raw/1.parquet", "--append")
TRAIN, GROWN = verb("train", CONFIG), verb("run", CONFIG, "trainer.epochs=4", "--resume")
INGEST, EVALUATE, EXPORT = verb("ingest", CONFIG), verb("evaluate", RUN), verb("export", RUN)
PUBLISH = verb("bundle", "publish", RUN, LIVE, "--keep", "1")
EXAMPLES, ROWS = make_examples(CONFIG), make_examples(SHOP)
RANKER, TAKEN_IN = verb("train", SHOP), verb("ingest", SHOP)
ASKED, SHIPPED = verb("evaluate", SHOP_RUN), verb("export", SHOP_RUN)
FIRST_DAYS = verb("daily", "days.toml", "data.last_day=6")
DAY = verb("daily", "days.toml", "data.first_day=7", "data.last_day=7")
_IDS = f"{RUN}/examples/vocabulary", f"{RUN}/checkpoints/vocabulary"
_SHOP_IDS = f"{SHOP_RUN}/examples/vocabulary", f"{SHOP_RUN}/checkpoints/vocabulary"
_DAYS_IDS = tuple(
    f"runs/days/days/2024-01-0{day}/{part}/vocabulary"
    for day in (7, 8)
    for part in ("examples", "examples_refit", "checkpoints")
)

STEPS = (
    Step("ingest", None, INGEST, INGEST),
    Step("first day", "ingest", FIRST, FIRST, weight=0),
    Step("append", "first day", APPEND, APPEND, _grow),
    Step("examples", "ingest", EXAMPLES, EXAMPLES, vocabularies=_IDS[:1]),
    Step("training", "ingest", TRAIN, verb("train", CONFIG, "--resume"), vocabularies=_IDS),
    Step("evaluation", "training", EVALUATE, EVALUATE, weight=0.5),
    Step("export", "evaluation", EXPORT, EXPORT, weight=0.5),
    Step("publish", "export", PUBLISH, PUBLISH),
    Step("growth", "publish", GROWN, GROWN, _grow, _IDS, weight=0.25),
    Step("publish again", "growth", PUBLISH, PUBLISH),
    Step("ingest of rows", None, TAKEN_IN, TAKEN_IN, weight=0),
    Step("rows", "ingest of rows", ROWS, ROWS, vocabularies=_SHOP_IDS[:1]),
    Step(
        "evicting",
        "rows",
        RANKER,
        verb("train", SHOP, "--resume"),
        vocabularies=_SHOP_IDS,
    ),
    Step("evaluation of rows", "evicting", ASKED, ASKED, weight=0.25),
    Step("export of rows", "evaluation of rows", SHIPPED, SHIPPED, weight=0.25),
    Step("first days", None, FIRST_DAYS, FIRST_DAYS, vocabularies=_DAYS_IDS[:3], weight=0.1),
    Step("day", "first days", DAY, DAY, vocabularies=_DAYS_IDS, weight=0.5),
)
"""Each starts from what an earlier one has left."""


def needed(names: Collection[str]) -> list[Step]:
    """The steps of these names, and those before them."""
    wanted = set(names)
    for step in reversed(STEPS):
        if step.name in wanted and step.after is not None:
            wanted.add(step.after)
    return [step for step in STEPS if step.name in wanted]


def lost_keys(before: Path, after: Path, step: Step) -> int:
    """Ids that have another row in `after`, or none."""
    from feature_store.vocabulary import Keys, Vocabulary

    lost = 0
    for folder in step.vocabularies:
        for path in (before / folder).glob("*.arrow"):
            was, there = Vocabulary.load(path), after / folder / path.name
            if isinstance(was, Keys):  # listed nowhere: who has a row is part of checkpoints
                continue
            now = Vocabulary.load(there).values if there.exists() else was.values[:0]
            pairs = zip(was.values.to_pylist(), now.to_pylist(), strict=False)
            lost += len(was.values) - sum(a == b for a, b in pairs)
    return lost


def copied(state: Path, to: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(state, to, symlinks=True)
    return to
