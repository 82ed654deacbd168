"""How good are our sequence models on MovieLens-1M beside RecTools' HSTU on the same file?

Leave one out: all train on the same events (validation included) for the same number of epochs,
and rank all items for the same test events; RecTools is told when the test events were, as HSTU
is here. Both HSTUs have the shape of the published base model: width 50, 2 blocks, 1 head, the
last 200 events, 128 uniform negatives of each target, cosines at temperature 0.05, batches of 128
users, Adam 1e-3, dropout 0.2. RecTools draws anew for every target, ours in 256 sets a step, to
which targets are assigned; `hstu_whole_catalogue` is ours with all items as negatives. `best` is
the config in `pipelines/configs` that is named with `--best`, as it stands but for its epochs. Run
`make peers` first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.sequence_training import PEER, PEER_PYTHON, config_of
from benchmarks.trained import CONFIGS
from feature_store.columns import TARGET, TIME
from feature_store.protocols import LEARNT, TEST
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, load_config, parse_config
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.retrievers.base import VectorRetriever
from recsys.runs.evaluators import make_evaluator, request_reader
from recsys.runs.learn import learn
from recsys.runs.phases import Phase
from recsys.runs.prepare import prepare
from recsys.statistics.bootstrap import mean_intervals

FIGURES = ("HR@10", "NDCG@10")


def same_shape(data: Path, folder: Path, epochs: int) -> RunConfig:
    """Our HSTU of the published base shape."""
    tree = config_of(data, folder, epochs).to_dict()
    tree["retriever"] |= {"name": "hstu", "negative_sets": 256}
    tree["retriever"].pop("block")
    return parse_config(tree, ["seed=1"])


def ours(config: RunConfig, examples: Examples) -> dict[str, Any]:
    """Figures after the last epoch."""
    with join("cpu") as group, tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        model = learn(config, examples, group, Path(name)).model  # nothing is validated: the last
        seconds = time.perf_counter() - started
        assert isinstance(model, VectorRetriever)
        requests = request_reader(config, examples, model, TEST, group)
        found = make_evaluator(config, examples, TEST).evaluate(model, requests, group)
    figures = {name: round(found.metrics[name], 4) for name in FIGURES}
    low, high = mean_intervals(np.stack([found.users[name] for name in FIGURES], axis=1))
    ends = zip(FIGURES, low.round(4).tolist(), high.round(4).tolist(), strict=True)
    return {
        **figures,
        "ci95": {name: (bottom, top) for name, bottom, top in ends},
        "fit_s": round(seconds),
    }


def theirs(examples: Examples, folder: Path, epochs: int) -> dict[str, Any]:
    """Figures of RecTools' HSTU."""
    found = examples.interactions()
    events = {"user": found.users.numpy(), "item": found.items.numpy(), "time": found.times.numpy()}
    pq.write_table(pa.table(events), folder / "train.parquet")
    asked = pq.read_table(examples.folder / "test.parquet")
    test = {"user": asked.column(examples.schema.user), "time": asked.column(TIME)}
    items = asked.column(TARGET).combine_chunks().flatten()  # one each
    pq.write_table(pa.table({**test, "item": items}), folder / "test.parquet")
    command = [str(PEER_PYTHON), str(PEER), str(folder / "train.parquet")]
    command += [
        "--test",
        str(folder / "test.parquet"),
        "--model",
        "hstu",
        "--epochs",
        str(epochs),
        "--seed",
        "1",
    ]
    command += ["--threads", str(torch.get_num_threads())]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    whole = json.loads(result.stdout.splitlines()[-1])
    return {name: round(whole[name], 4) for name in FIGURES} | {"fit_s": round(whole["fit_s"])}


def main() -> None:
    """Train all in turn and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="MovieLens-1M, folder or zip")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--only", nargs="*", help="some of hstu, hstu_whole_catalogue, the best, rectools_hstu"
    )
    parser.add_argument("--best", default="movielens_1m_hstu", help="a config's name")
    args = parser.parse_args()
    if not PEER_PYTHON.exists():
        sys.exit(f"{PEER_PYTHON} is missing: run `make peers` first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        same = same_shape(args.data, folder, args.epochs)
        chosen = load_config(
            CONFIGS / f"{args.best}.toml",
            [f"data.path={args.data}", f"output={folder}", f"trainer.epochs={args.epochs}"],
        )
        ingest_source(same.data, same.store_folder)
        examples = prepare(same, Phase("refit", LEARNT, same.trainer))
        whole = parse_config(same.to_dict(), ["retriever.negatives=0"])
        arms = {"hstu": same, "hstu_whole_catalogue": whole, args.best: chosen}
        found = {}
        for label in (label for label in arms if not args.only or label in args.only):
            found[label] = ours(arms[label], examples)
            print(f"{label}: {found[label]}", file=sys.stderr, flush=True)
        asked = not args.only or "rectools_hstu" in args.only
        rival = theirs(examples, folder, args.epochs) if asked else None
    summary: dict[str, Any] = {"benchmark": "quality_vs_rectools", "ours": found}
    if rival is not None and found:
        shares = {label: one["NDCG@10"] / rival["NDCG@10"] for label, one in found.items()}
        summary |= {
            "rectools_hstu": rival,
            "ndcg10_ratio": round(max(shares.values()), 3),
            "ndcg10_ratios": {label: round(share, 3) for label, share in shares.items()},
        }
    print(json.dumps({**summary, "epochs": args.epochs, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
