"""How fast is an epoch of SASRec on MovieLens-1M, beside RecTools' at the same shape?

Both train on the same leave-one-out training events: width 50, 2 blocks, 1 head, the last 200
events, 128 negatives, sampled softmax over cosines at temperature 0.05, batches of 128 users,
Adam 1e-3, dropout 0.2. `speedup` is their seconds per epoch over ours; medians after one warm-up
epoch each. RecTools runs in an environment of its own: `make peers` first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.runs.learn import trainer_of
from recsys.runs.prepare import prepare

PEER = Path(__file__).parent / "peers" / "rectools_sequential.py"
PEER_PYTHON = Path(".venv-peers/bin/python")
SASREC = {
    "name": "sasrec",
    "width": 50,
    "blocks": 2,
    "heads": 1,
    "max_length": 200,
    "negatives": 128,
    "dropout": 0.2,
    "temperature": 0.05,
}


def config_of(data: Path, folder: Path, epochs: int) -> RunConfig:
    """The shape that both sides train."""
    return parse_config(
        {
            "name": "sequence_training",
            "output": str(folder),
            "data": {"source": "movielens", "path": str(data)},
            "retriever": SASREC,
            "reader": {"batch_size": 128},
            "trainer": {"epochs": epochs},
        }
    )


def ours(config: RunConfig, examples: Examples) -> list[float]:
    """Seconds of every epoch."""
    with join("cpu") as group:
        progress = trainer_of(config, examples, group, config.folder / "checkpoints").fit()
    return [epoch["seconds"] for epoch in progress.history]


def theirs(examples: Examples, folder: Path, epochs: int) -> list[float]:
    """Seconds of every epoch of RecTools' SASRec on the same events."""
    found = examples.interactions()
    events = folder / "events.parquet"
    pq.write_table(pa.table({"user": found.users.numpy(), "item": found.items.numpy()}), events)
    command = [str(PEER_PYTHON), str(PEER), str(events), "--epochs", str(epochs)]
    command += ["--threads", str(torch.get_num_threads())]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])["epoch_s"]


def main() -> None:
    """Train both in turn and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="MovieLens-1M, folder or zip")
    parser.add_argument("--epochs", type=int, default=3, help="measured, after one warm-up")
    args = parser.parse_args()
    if not PEER_PYTHON.exists():
        sys.exit(f"{PEER_PYTHON} is missing: run `make peers` first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = config_of(args.data, folder, args.epochs + 1)
        ingest_source(config.data, config.store_folder)
        examples = prepare(config)
        own, rival = ours(config, examples), theirs(examples, folder, args.epochs + 1)
    mine, other = statistics.median(own[1:]), statistics.median(rival[1:])
    print(
        json.dumps(
            {
                "benchmark": "sequence_training",
                "seconds_per_epoch": round(mine, 2),
                "rival_seconds_per_epoch": round(other, 2),
                "speedup": round(other / mine, 2),
                "epochs": args.epochs,
                "threads": torch.get_num_threads(),
                "events": examples.summary.events["train"],
            }
        )
    )


if __name__ == "__main__":
    main()
