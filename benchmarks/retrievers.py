"""How fast do retrievers train and retrieve at the size of MovieLens-1M?

Each retriever runs in a process of its own. `samples_per_second` counts the targets of median
training steps (forward, backward, optimizer), `fit_s` the seconds of what has no steps;
`users_per_second` the test users who get a full ranking of 100 out of all items, without what they
have seen. `floor_share` is the time that the step's multiplications would take at the rate of a
large float32 matrix product of this machine, over the step's time: 1 would be nothing but matrix
products at full speed. `peak_mb` is the process's, PyTorch itself included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import product_rate, timed, wait
from feature_store.columns import HISTORY
from feature_store.protocols import TEST
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import VectorRetriever
from recsys.retrievers.fitted import FittedRetriever
from recsys.retrievers.trained import TrainedRetriever
from recsys.runs.build import build_model
from recsys.runs.evaluators import request_reader
from recsys.runs.learn import trainer_of
from recsys.runs.prepare import prepare

MODELS: dict[str, dict[str, Any]] = {
    "sasrec": {"name": "sasrec", "negatives": 128},
    "sasrec_gated": {"name": "sasrec", "block": "gated", "negatives": 128},
    "sasrec_whole_catalogue": {"name": "sasrec", "negatives": 0},
    "hstu": {"name": "hstu", "negatives": 128},
    "hstu_large": {
        "name": "hstu",
        "negatives": 128,
        "blocks": 8,
        "heads": 2,
        "head_width": 25,
    },
    "mind": {"name": "multi_interest", "extractor": "mind"},
    "comirec_dr": {"name": "multi_interest", "extractor": "comirec_dr"},
    "comirec_sa": {"name": "multi_interest", "extractor": "comirec_sa"},
    "hcn": {"name": "multi_interest", "extractor": "hcn"},
    "ada_retrieval": {
        "name": "ada_retrieval",
        "backbone": {"name": "sasrec", "max_length": 50, "negatives": 128},
    },
    "two_tower": {"name": "two_tower"},
    "recformer": {"name": "recformer"},
    "unisrec": {"name": "unisrec", "negatives": 128},
    "lightgcn": {"name": "graph"},
    "sheaf": {"name": "graph", "propagation": "sheaf"},
    "knn_embed": {"name": "knn_embed"},
    "als": {"name": "als"},
    "bpr": {"name": "bpr"},
    "ease": {"name": "ease"},
    "item_knn": {"name": "item_knn"},
    "gf_cf": {"name": "gf_cf"},
    "bspm": {"name": "bspm"},
}
EVENTS = {"two_tower", "lightgcn", "sheaf"}  # batches of single events


def config_of(model: str, data: Path, folder: Path, device: str) -> RunConfig:
    """A run of one retriever on the same log."""
    return parse_config(
        {
            "name": model,
            "seed": 1,
            "output": str(folder),
            "data": {"source": "movielens", "path": str(data)},
            "retriever": MODELS[model],
            "reader": {"batch_size": 2048 if model in EVENTS else 128},
            "trainer": {"device": device, "precision": "bf16" if device == "cuda" else "fp32"},
        }
    )


def measure(config: RunConfig, steps: int, device: str) -> dict[str, Any]:
    """The figures of one retriever."""
    examples = prepare(config)
    with join(device) as group, tempfile.TemporaryDirectory() as name:
        model = build_model(config, examples)
        assert isinstance(model, VectorRetriever)
        if isinstance(model, FittedRetriever):
            started = time.perf_counter()
            model.fit(examples.interactions(), examples)
            found: dict[str, Any] = {"fit_s": round(time.perf_counter() - started, 2)}
        else:
            assert isinstance(model, TrainedRetriever)
            found = _training(config, examples, steps, group, Path(name))
        found["users_per_second"] = _users_per_second(config, examples, model, group)
        kept = model.state_dict().values()
        found["numbers"] = sum(part.numel() for part in kept if part.is_floating_point())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if group.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {**found, "peak_mb": round(peak)}


def _training(
    config: RunConfig, examples: Examples, steps: int, group: Group, folder: Path
) -> dict[str, Any]:
    trainer = trainer_of(config, examples, group, folder)
    batches = [batch.to(group.device) for batch in itertools.islice(trainer.reader, steps)]
    counter = FlopCounterMode(display=False)
    with counter:
        trainer.model(batches[0], 0).total.backward()
    trainer.model.zero_grad()
    samples = [int(trainer.model(batch, 0).weight) for batch in batches]
    for batch in batches[:3]:
        trainer.step(batch)
    seconds = [timed(trainer.step, batch, device=group.device) for batch in batches]
    rates = [count / spent for count, spent in zip(samples, seconds, strict=True)]
    floor = counter.get_total_flops() / product_rate(group.device)
    return {
        "samples_per_second": round(statistics.median(rates)),
        "step_ms": round(1e3 * statistics.median(seconds), 1),
        "floor_share": round(floor / seconds[0], 3),
    }


def _users_per_second(
    config: RunConfig, examples: Examples, model: VectorRetriever, group: Group
) -> int:
    model.eval().to(group.device)
    model.prepare(examples.candidates(config.split.candidates, TEST).to(group.device))
    requests = [
        batch.to(group.device) for batch in request_reader(config, examples, model, TEST, group)
    ]
    started = time.perf_counter()
    for batch in requests:
        known = batch.jagged(HISTORY)
        model.retrieve(batch, 100, Pairs.of_lists(known.values(), known.lengths()))
    wait(group.device)
    return round(sum(map(len, requests)) / (time.perf_counter() - started))


def main() -> None:
    """Measure every retriever and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="MovieLens-1M, folder or zip")
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of one retriever's process
    args = parser.parse_args()
    if args.folder is not None:
        (model,) = args.only
        config = config_of(model, args.data, args.folder, args.device)
        print(json.dumps(measure(config, args.steps, args.device)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as name:
        config = config_of("sasrec", args.data, Path(name), args.device)
        ingest_source(config.data, config.store_folder)
        for model in args.only:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.retrievers"]
            command += ["--data", str(args.data), "--only", model, "--folder", name]
            command += ["--steps", str(args.steps), "--device", args.device]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[model] = json.loads(result.stdout.splitlines()[-1])
            print(f"{model}: {found[model]}", file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "benchmark": "retrievers",
                "retrievers": found,
                "device": args.device,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
