"""Every trained retriever and ranker, a few steps each."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.logs import config_of, examples_of, marketplace
from benchmarks.gpu.step import Outcome, Settings
from benchmarks.retrievers import MODELS
from benchmarks.timing import wait
from recsys.config import RunConfig
from recsys.distributed import join
from recsys.rankers import RANKERS, ranker_class
from recsys.retrievers import retriever_class
from recsys.runs.learn import trainer_of

STEPS, TINY_STEPS = 20, 2
SUBJECTS: dict[str, dict[str, Any]] = {
    name: {"retriever": model}
    for name, model in MODELS.items()
    if retriever_class(model["name"]).learns_by_gradient
} | {name: {"ranker": {"name": name}} for name in RANKERS}
TABLES: dict[str, dict[str, Any]] = {
    "replicated": {},
    # fused kernels, at the width that they need: a multiple of 4
    "sharded": {"embeddings": {"shard_above_mb": 0}},
    "sharded_adam": {"embeddings": {"shard_above_mb": 0}, "optimizer": {"sharded": "adam"}},
}
_RANKER: dict[str, Any] = {"split": {"protocol": "random"}}


class Losses:
    """Listens to a training: its losses, and when each step had ended."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.losses: list[float] = []
        self.times: list[float] = []

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """Keep the loss and the time."""
        wait(self.device)
        self.losses.append(loss)
        self.times.append(time.perf_counter())

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Nothing is validated."""

    def note(self, text: str) -> None:
        """Nothing to say."""


def run_of(settings: Settings, subject: str, precision: str, tables: str) -> RunConfig:
    """The run of a subject; those that read equal examples share their folder."""
    options = TABLES[tables]
    model = _retriever(SUBJECTS[subject]["retriever"], settings) if _finds(subject) else None
    parts: dict[str, Any] = {"retriever": model} if model else _RANKER | SUBJECTS[subject]
    kind = retriever_class(model["name"]) if model else ranker_class(parts["ranker"]["name"])
    per, length = kind.rows_of.per, (model or {}).get("max_length", "default")
    texts = "-texts" if kind.rows_of.texts else ""
    steps = TINY_STEPS if settings.tiny else STEPS
    return config_of(
        settings,
        f"{per}-{length}{texts}" if model else "ranker",
        marketplace(settings),
        **parts,
        trainer={
            "steps": steps,
            "epochs": steps,
            "device": settings.device,
            "precision": precision,
            "optimizer": options.get("optimizer", {}),
        },
        reader={"batch_size": 16 if per == "user" else 256},
        embeddings=options.get("embeddings", {}),
    )


def _finds(subject: str) -> bool:
    return "retriever" in SUBJECTS[subject]


def _retriever(options: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A retriever's options at a width that fused kernels can take."""
    width = {"width": 16 if settings.tiny else 64}
    if "backbone" not in options:
        return options | width
    tiny = {"list_size": 10} if settings.tiny else {}
    return options | tiny | {"backbone": options["backbone"] | width}


def train(settings: Settings, subject: str, precision: str, tables: str) -> Outcome:
    """Twenty steps and a checkpoint. Fails where a loss is not finite."""
    config = run_of(settings, subject, precision, tables)
    examples = examples_of(config)
    with join(settings.device) as group, TemporaryDirectory(dir=settings.folder) as folder:
        if group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        listener = Losses(group.device)
        trainer_of(config, examples, group, Path(folder), listener=listener).fit()
        peak = torch.cuda.max_memory_allocated() if group.device.type == "cuda" else None
    losses, times = listener.losses, listener.times
    if not all(map(math.isfinite, losses)):
        raise ArithmeticError(f"losses {losses}")
    spent = [after - before for before, after in itertools.pairwise(times)]
    outcome = {
        "steps": len(losses),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "step_ms": round(1e3 * statistics.median(spent), 2),
    }
    return outcome | ({} if peak is None else {"peak_mb": round(peak / 1e6, 1)})
