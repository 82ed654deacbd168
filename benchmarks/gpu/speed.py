"""How fast: tables, an epoch of SASRec, HSTU, and what torch.compile adds."""

from __future__ import annotations

import itertools
import statistics
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import embedding_step
from benchmarks.gpu.logs import config_of, examples_of, like_movielens, marketplace
from benchmarks.gpu.step import Outcome, Settings
from benchmarks.gpu.training import SUBJECTS
from benchmarks.sequence_training import SASREC
from benchmarks.timing import product_rate, timed
from recsys.config import RunConfig
from recsys.data.batch import Batch
from recsys.distributed import Group, join
from recsys.runs.learn import trainer_of
from recsys.training.growth import unwrap
from recsys.training.trainer import Trainer

_BACKWARD = 2  # a backward pass multiplies twice what the forward pass does


def tables(settings: Settings) -> Outcome:
    """The step of a large table, and the share of the memory's bandwidth that it takes."""
    rows = 1_000 if settings.tiny else 10_000_000
    sizes = {"rows": rows, "width": 64, "batch": 64 if settings.tiny else 16_384, "ids": 20}
    repeats = {"steps": 2 if settings.tiny else 30, "repetitions": 1 if settings.tiny else 3}
    with TemporaryDirectory() as folder, join(settings.device) as group:
        arguments = Namespace(**sizes, **repeats, copied=1 << (16 if settings.tiny else 28))
        return {**embedding_step.compare(arguments, group, Path(folder)), **sizes}


def _sequences(settings: Settings, retriever: dict[str, Any], **trainer: Any) -> RunConfig:
    if settings.tiny:
        retriever = {**retriever, "max_length": 10, "negatives": 16}
    return config_of(
        settings,
        f"sequences-{retriever.get('max_length')}",
        like_movielens(settings),
        retriever=retriever,
        trainer={"device": settings.device, **trainer},
        reader={"batch_size": 128},
    )


def epoch(settings: Settings, precision: str) -> Outcome:
    """Seconds of SASRec's epochs at the shape of `benchmarks.sequence_training`."""
    config = _sequences(settings, SASREC, epochs=1 if settings.tiny else 4, precision=precision)
    examples = examples_of(config)
    with join(settings.device) as group, TemporaryDirectory(dir=settings.folder) as folder:
        progress = trainer_of(config, examples, group, Path(folder)).fit()
    seconds = [round(epoch["seconds"], 3) for epoch in progress.history]
    return {"epochs_s": seconds, "events": examples.summary.events["train"]}


def utilisation(settings: Settings, subject: str, batch_size: int) -> Outcome:
    """The multiplications of a step over what the GPU could do in its time with large bfloat16
    products; a backward pass counts as two forward passes, whatever it computes once more."""
    retriever = {"max_length": 200, **SUBJECTS[subject]["retriever"]}
    config = _sequences(settings, retriever, precision="bf16")
    config = config.model_copy(
        update={"reader": config.reader.model_copy(update={"batch_size": batch_size})}
    )
    examples = examples_of(config)
    with join(settings.device) as group, TemporaryDirectory(dir=settings.folder) as folder:
        trainer = trainer_of(config, examples, group, Path(folder))
        batches = _batches(trainer, group, 2 if settings.tiny else 12)
        counter = FlopCounterMode(display=False)
        # without gradients: a forward pass alone is no step of what wraps the model
        with counter, torch.no_grad(), torch.autocast(settings.device, torch.bfloat16):
            trainer.model(batches[0], 0)
        forward = counter.get_total_flops()
        steps = _steps(trainer, batches, group)
        size = 256 if settings.tiny else 8192
        rate = product_rate(group.device, size, dtype=torch.bfloat16)
        peak = torch.cuda.max_memory_allocated() if settings.device == "cuda" else None
    utilised = forward * (1 + _BACKWARD) / steps[0] / rate
    outcome = {
        "step_ms": round(1e3 * statistics.median(steps), 2),
        "forward_gflop": round(forward / 1e9, 3),
        "product_tflops": round(rate / 1e12, 1),
        "utilisation": round(utilised, 5),
        "batch_size": batch_size,
    }
    return outcome | ({} if peak is None else {"peak_mb": round(peak / 1e6, 1)})


def compiled(settings: Settings, subject: str) -> Outcome:
    """A step as it is, and with its layers compiled."""
    model = SUBJECTS[subject]
    trainer = {"device": settings.device, "precision": "bf16"}
    if "retriever" in model:
        config = _sequences(settings, {"max_length": 200, **model["retriever"]}, **trainer)
    else:
        data, split = marketplace(settings), {"protocol": "random"}
        config = config_of(settings, "ranker-default", data, **model, split=split, trainer=trainer)
    examples = examples_of(config)
    spent: dict[str, float] = {}
    with join(settings.device) as group:
        for way in ("eager", "compiled"):
            with TemporaryDirectory(dir=settings.folder) as folder:
                made = trainer_of(config, examples, group, Path(folder))
                if way == "compiled":
                    _compile(unwrap(made.model), "eager" if settings.tiny else "inductor")
                steps = _steps(made, _batches(made, group, 2 if settings.tiny else 12), group)
            spent[f"{way}_ms"] = round(1e3 * statistics.median(steps), 2)
    return spent


def _compile(model: nn.Module, backend: str) -> None:
    """Compile the layers, whose lengths differ from batch to batch, in place."""
    blocks = getattr(model, "blocks", None)
    layers = blocks if blocks is not None else [model.get_submodule(n) for n in ("cross", "deep")]
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)


def _batches(trainer: Trainer, group: Group, count: int) -> list[Batch]:
    return [batch.to(group.device) for batch in itertools.islice(trainer.reader, count)]


def _steps(trainer: Trainer, batches: list[Batch], group: Group) -> list[float]:
    """Seconds of a step on each batch, once all were seen."""
    for batch in batches:
        trainer.step(batch)
    return [timed(trainer.step, batch, device=group.device) for batch in batches]
