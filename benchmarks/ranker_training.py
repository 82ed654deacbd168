"""How many rows a second do rankers train on, beside the same networks in FuxiCTR?

DIN and DCN over one random log: every user has 50 earlier events, and each batch has 4,096 rows.
Both sides train on the same rows with the same network, optimizer (Adam, gradients clipped at norm
10) and threads, reading and shuffling included, an epoch in turn; the speed-up is that of the
medians, after one warm-up epoch each. Each as its users get it: FuxiCTR reads its `npz` with no
further process (more of them were not tried) and is not told of huge pages, which `recsys` asks
for. It runs in an environment of its own: `make peers`.
`python -m benchmarks.rankers` prints these figures beside those of serving.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.requests import processor
from feature_store.catalogue import Catalogue
from feature_store.columns import LABEL
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.protocols import LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group, join
from recsys.embeddings.options import PerFeature
from recsys.rankers import build, ranker_class
from recsys.training.memory import kept_memory
from recsys.training.options import OptimizerConfig, TrainerConfig
from recsys.training.trainer import Trainer

PEER = Path(__file__).parent / "peers" / "fuxictr_ranker.py"
PEER_PYTHON = Path(".venv-fuxictr/bin/python")
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
BATCH, EVENTS = 4096, 50
ITEMS, CATEGORIES = 63_001, 801  # as many as Amazon Electronics has
ROWS_OF_A_USER = 8
SHAPES: dict[str, dict[str, Any]] = {  # our defaults at the width that is served in the benchmark
    "din": {"width": 64, "hidden": [128], "attention_hidden": [36]},
    "dcn": {"width": 64, "hidden": [128], "cross_layers": 2},
}
RATE, CLIP = 1e-3, 10.0
SCHEMA = Schema(
    user="user_id",
    item="item_id",
    label="label",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="item_id", kind="id", side="item", dtype="int64"),
        Feature(name="category", kind="id", side="item", dtype="int64"),
        Feature(name="label", kind="dense", side="context", dtype="float32"),
    ),
)


def write_log(folder: Path, users: int, days: int, items: int, categories: int) -> EventLog:
    """Every user has an event a day, of a random item with a random label."""
    log, random = EventLog.create(folder, SCHEMA), np.random.default_rng(0)
    times = [datetime(2024, 1, 1) + timedelta(days=day) for day in range(days)]
    columns = {
        "user_id": np.repeat(np.arange(users), days),
        "item_id": random.integers(0, items, users * days),
        "time": pa.array(times * users, pa.timestamp("us")),
        "label": random.integers(0, 2, users * days).astype(np.float32),
    }
    log.append(pa.table(columns))
    of_items = {"item_id": np.arange(items), "category": random.integers(0, categories, items)}
    Catalogue(folder, SCHEMA).write("item", pa.table(of_items))
    return log


def write(folder: Path, batches: int) -> Examples:
    """So many batches of rows, each with a full history, of random users and items."""
    users, held_out = batches * BATCH // ROWS_OF_A_USER, 2
    days = EVENTS + ROWS_OF_A_USER + held_out
    log = write_log(folder / "log", users, days, ITEMS, CATEGORIES)
    catalogue, rows = Catalogue(log.folder, SCHEMA), RowsOf(per="event", labels=True)
    since = datetime(2024, 1, 1) + timedelta(days=EVENTS)
    with Engine(EngineConfig(threads=torch.get_num_threads())) as engine:
        split = make_split(engine, log, LeaveOneOut())
        write_examples(engine, split, catalogue, folder / "examples", rows_of=rows, since=since)
    return Examples(folder / "examples")


def trainer_of(name: str, examples: Examples, group: Group, folder: Path) -> Trainer:
    """Ours, before its first step."""
    torch.manual_seed(0)
    config = ranker_class(name).Config.model_validate({"name": name, **SHAPES[name]})
    ranker = build(config, PerFeature(), examples)
    reader = ranker.training_reader(
        examples, ReaderConfig(batch_size=BATCH), seed=0, rank=0, world=1
    )
    optimizer = OptimizerConfig(learning_rate=RATE)
    training = TrainerConfig(optimizer=optimizer, clip_norm=CLIP)
    return Trainer(ranker, reader, training, group, folder)


def epoch(trainer: Trainer) -> float:
    """Seconds of an epoch."""
    started = time.perf_counter()
    for batch in trainer.reader:
        trainer.step(batch)
    return time.perf_counter() - started


def write_rows(name: str, trainer: Trainer, examples: Examples, folder: Path) -> None:
    """The rows that a trainer reads, for FuxiCTR: no column that its network does not read."""
    model = trainer.model.module
    (category,) = (f for f in SCHEMA.features if f.name == "category")
    categories = examples.item_column(category).numpy()
    columns: dict[str, list[np.ndarray]] = {}
    for batch in trainer.reader:
        row = {column: batch.id(column).numpy() for column in ("user_id", "item_id")}
        row["category"] = categories[row["item_id"]]
        for history in model.histories:
            row["item_id_history"] = batch.padded(history.name, EVENTS).numpy()
            row["category_history"] = categories[row["item_id_history"]]
        row["label"] = batch.label(LABEL).numpy()
        for column, values in row.items():
            columns.setdefault(column, []).append(values)
    whole = {column: np.concatenate(parts) for column, parts in columns.items()}
    np.savez(folder / f"{name}.npz", **whole)  # type: ignore[arg-type]  # as if one were its option
    rows = {f: len(examples.vocabulary(f)) for f in ("user_id", "item_id", "category")}
    shape = {"rows": rows, "max_length": EVENTS, "batch_size": BATCH, "learning_rate": RATE}
    (folder / f"{name}.json").write_text(json.dumps(shape | SHAPES[name]))


class Rival:
    """FuxiCTR's training of rows that were written, an epoch at a time."""

    def __init__(self, folder: Path, name: str, threads: int, workers: int) -> None:
        command = [str(PEER_PYTHON), str(PEER), str(folder), name, "--threads", str(threads)]
        command += ["--workers", str(workers)]
        own = {name: value for name, value in os.environ.items() if name != HUGE_PAGES}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own
        )

    def epoch(self) -> float:
        """Seconds of an epoch."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        print(file=asked, flush=True)
        answer = answers.readline()
        if not answer:
            sys.exit(f"{PEER} ended: see what it wrote above")
        return float(answer)

    def close(self) -> None:
        """Let it go."""
        self._process.communicate()


def compare(
    name: str, examples: Examples, folder: Path, epochs: int, workers: int
) -> dict[str, Any]:
    """Both sides in turn: rows a second of each, and their ratio."""
    with join("cpu") as group:
        trainer = trainer_of(name, examples, group, folder / "checkpoints")
        write_rows(name, trainer, examples, folder)
        rival = Rival(folder, name, torch.get_num_threads(), workers)
        with kept_memory():  # as `Trainer.fit` does
            took = [(epoch(trainer), rival.epoch()) for _ in range(epochs + 1)]
        rival.close()
    own, other = (statistics.median(seconds) for seconds in zip(*took[1:], strict=True))
    return {
        "rows_per_s": round(trainer.reader.num_rows / own),
        "rival_rows_per_s": round(trainer.reader.num_rows / other),
        "speedup": round(other / own, 2),
        "epochs": [[round(seconds, 3) for seconds in pair] for pair in took[1:]],
        **SHAPES[name],
    }


def measure(batches: int = 8, epochs: int = 3, workers: int = 0) -> dict[str, Any]:
    """The figures of every network by its name."""
    if not PEER_PYTHON.exists():
        sys.exit(f"{PEER_PYTHON} is missing: run `make peers` first")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        examples = write(folder, batches)
        return {name: compare(name, examples, folder, epochs, workers) for name in SHAPES}


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=8, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="measured, after a warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0, help="FuxiCTR's, that collate batches")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pa.set_cpu_count(args.threads)
    figures = measure(args.batches, args.epochs, args.workers)
    print(
        json.dumps(
            {
                "benchmark": "ranker_training",
                **{f"{name}_speedup": of["speedup"] for name, of in figures.items()},
                "rankers": figures,
                "batch_size": BATCH,
                "history": EVENTS,
                "processor": processor(),
                "threads": args.threads,
            }
        )
    )


if __name__ == "__main__":
    main()
