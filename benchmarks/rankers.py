"""How many candidates a second do rankers score, one request at a time?

HCN and DIN of the same width over a random log whose users have 50 events: the request is encoded
and 10,000 candidates are scored, as many at a time as suits each ranker best; then 500 by its
exported program, as a bundle asks for them. Nothing is trained, which changes no answer's time.

`hcn_over_din` is the ratio of candidates a second, of medians of calls in turn; `p99_ms_500` the
time of 500 candidates by DIN's program, the request read and its tensors made. `din_speedup` and
`dcn_speedup` are of training against FuxiCTR, on all cores: `benchmarks.ranker_training`, which
needs `make peers`; null without.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.ranker_training import PEER_PYTHON, SCHEMA, write_log
from benchmarks.requests import processor
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.examples import RowsOf, write_examples
from feature_store.protocols import LeaveOneOut
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import materialise
from recsys.export.bundle import write_bundle
from recsys.export.ranker import RankerExport
from recsys.rankers import build, ranker_class
from recsys.rankers.base import Ranker
from recsys.serving.manifest import About
from recsys.serving.scorer import Scorer

USERS, EVENTS, CATEGORIES = 200, 50, 100
COARSE, FINE = 10_000, 500
AT_A_TIME = (250, 500, 1000, 2500, COARSE)


def ranker_of(name: str, width: int, examples: Examples) -> Ranker:
    """A ranker as it answers, with the weights it begins with."""
    torch.manual_seed(0)
    config = ranker_class(name).Config(name=name, width=width, max_length=EVENTS)  # type: ignore[call-arg]
    ranker = build(config, PerFeature(), examples)
    materialise(ranker)
    ranker.eval().freeze()
    return ranker


def asking(ranker: Ranker, examples: Examples, at_a_time: int) -> Callable[[], object]:
    """A call that scores the candidates of one request after the other."""
    random = torch.Generator().manual_seed(1)
    reader = examples.reader("test", ranker.inputs, ReaderConfig(batch_size=1))
    requests = [ranker.inputs_of(batch) for _, batch in zip(range(20), reader, strict=False)]
    items = torch.randint(1, examples.num_items, (1, COARSE), generator=random)
    place = iter(range(1 << 60))

    def ask() -> object:
        state = ranker.encode(requests[next(place) % len(requests)])
        return [ranker.score(state, some) for some in items.split(at_a_time, dim=1)]

    return ask


def training() -> dict[str, Any]:
    """What `benchmarks.ranker_training` prints; nothing where FuxiCTR is not there."""
    if not PEER_PYTHON.exists():
        print("training is not compared: run `make peers` first", file=sys.stderr)
        return {}
    command = [sys.executable, "-m", "benchmarks.ranker_training"]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def fastest(ranker: Ranker, examples: Examples) -> int:
    """How many candidates at a time suit a ranker best."""
    calls = {str(count): asking(ranker, examples, count) for count in AT_A_TIME}
    took = seconds_of(calls, seconds=1.0)
    return int(min(took, key=lambda count: float(np.median(took[count]))))


def asking_bundle(scorer: Scorer, examples: Examples, count: int) -> Callable[[], object]:
    """The same of a bundle, with histories of raw ids."""
    random, place = np.random.default_rng(2), iter(range(1 << 60))
    tables = [
        pa.table(
            {
                "user_id": [int(random.integers(USERS))],
                "history": [random.integers(0, examples.num_items - 1, EVENTS).tolist()],
            }
        )
        for _ in range(20)
    ]
    items = torch.from_numpy(random.integers(1, examples.num_items, (1, count)))
    return lambda: scorer.logits(tables[next(place) % len(tables)], items)


def seconds_of(
    calls: dict[str, Callable[[], object]], seconds: float, least: int = 5
) -> dict[str, np.ndarray]:
    """Seconds of each call; they take turns, so that neighbours trouble all alike."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for ask in calls.values():
        ask()  # what is made once
    until = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < until or any(len(of) < least for of in took.values()):
        for name, ask in calls.items():
            start = time.perf_counter()
            ask()
            took[name].append(time.perf_counter() - start)
    return {name: np.array(of) for name, of in took.items()}


@torch.no_grad()
def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pa.set_cpu_count(args.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        log = write_log(folder / "log", USERS, EVENTS + 3, args.items, CATEGORIES)
        catalogue, rows = Catalogue(log.folder, SCHEMA), RowsOf(per="event", labels=True)
        with Engine(EngineConfig(threads=1)) as engine:
            split = make_split(engine, log, LeaveOneOut())
            write_examples(engine, split, catalogue, folder / "examples", rows_of=rows)
        examples = Examples(folder / "examples")
        rankers = {name: ranker_of(name, args.width, examples) for name in ("hcn", "din")}
        sizes = {name: fastest(ranker, examples) for name, ranker in rankers.items()}
        asked = {name: asking(rankers[name], examples, size) for name, size in sizes.items()}
        coarse = seconds_of(asked, args.seconds)
        bundles = {}
        for name, ranker in rankers.items():
            about = About(run="benchmark", model=name)
            part = RankerExport(ranker, examples, golden=2, about=about)
            bundle = write_bundle(folder / name, {"ranker": part}, catalogue)
            bundles[name] = asking_bundle(Scorer(bundle), examples, FINE)
        fine = seconds_of(bundles, args.seconds)
    rates = {name: COARSE / float(np.median(of)) for name, of in coarse.items()}
    figures = {
        name: {
            "candidates_per_s": round(rates[name]),
            f"p50_ms_{COARSE}": round(float(np.median(coarse[name])) * 1e3, 3),
            f"p50_ms_{FINE}": round(float(np.median(fine[name])) * 1e3, 3),
            f"p99_ms_{FINE}": round(float(np.percentile(fine[name], 99)) * 1e3, 3),
            "at_a_time": sizes[name],
            "calls": len(coarse[name]),
        }
        for name in rates
    }
    of_training = training()
    print(figures, file=sys.stderr)
    print(
        json.dumps(
            {
                "benchmark": "rankers",
                "din_speedup": of_training.get("din_speedup"),
                "dcn_speedup": of_training.get("dcn_speedup"),
                "hcn_over_din": round(rates["hcn"] / rates["din"], 1),
                f"p99_ms_{FINE}": figures["din"][f"p99_ms_{FINE}"],
                "rankers": figures,
                "training": of_training,
                "width": args.width,
                "history": EVENTS,
                "processor": processor(),
                "threads": args.threads,
            }
        )
    )


if __name__ == "__main__":
    main()
