"""How fast, and how good, is RecTools' SASRec or HSTU at a given shape on a given log?

Runs inside `.venv-peers` (see `make peers`) and trains as RecTools' own documentation does: its
default Lightning trainer, data loader and initialisation; only a stopwatch is added. Prints one
JSON line; seconds are wall-clock and the first epoch is a warm-up.

    .venv-peers/bin/python benchmarks/peers/rectools_sequential.py train.parquet --test test.parquet
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel

K = 10


class Stopwatch(Callback):
    """Wall-clock seconds of every training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def make_trainer(epochs: int) -> Trainer:
    """RecTools' default trainer, with a stopwatch."""
    return Trainer(
        max_epochs=epochs,
        min_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        devices=1,
        callbacks=[Stopwatch()],
    )


def read(path: Path) -> pd.DataFrame:
    """The columns `user`, `item` and, where there is one, `time` of a Parquet or CSV file, in the
    file's order."""
    found = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return found[[name for name in ("user", "item", "time") if name in found]]


def dataset_of(events: pd.DataFrame) -> Dataset:
    """A RecTools dataset; without times its clock is the row number, so that the order stays."""
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: events["user"].to_numpy(),
                Columns.Item: events["item"].to_numpy(),
                Columns.Weight: 1.0,
                Columns.Datetime: moments_of(events),
            }
        )
    )


def moments_of(events: pd.DataFrame) -> pd.DatetimeIndex:
    """When each event was; without times, the row number in seconds."""
    seconds = events["time"].to_numpy() if "time" in events else np.arange(len(events))
    return pd.to_datetime(seconds, unit="s")


def evaluate(
    model: SASRecModel | HSTUModel, known: pd.DataFrame, test: pd.DataFrame
) -> dict[str, float]:
    """HR@10 and NDCG@10 over all users of `test`; a user or item never trained on is a miss.

    A model that reads the request's time is told that of the user's first test event.
    """
    context = None
    if model.require_recommend_context:
        first = test.drop_duplicates("user")
        context = pd.DataFrame(
            {Columns.User: first["user"].to_numpy(), Columns.Datetime: moments_of(first)}
        )
    recommended = model.recommend(
        users=test["user"].unique(),
        dataset=dataset_of(known),
        k=K,
        filter_viewed=True,
        on_unsupported_targets="ignore",
        context=context,
    )
    test = test[["user", "item"]].drop_duplicates()
    hits = recommended.merge(test, left_on=["user_id", "item_id"], right_on=["user", "item"])
    gains = (1 / np.log2(hits["rank"] + 1)).groupby(hits["user"]).sum()
    wanted = test.groupby("user").size().clip(upper=K)
    ideal = np.cumsum(1 / np.log2(np.arange(K) + 2))[wanted - 1]
    ndcg = gains.reindex(wanted.index, fill_value=0.0) / ideal
    return {
        f"HR@{K}": hits["user"].nunique() / len(wanted),
        f"NDCG@{K}": float(ndcg.mean()),
        "test_users": len(wanted),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("train", type=Path, help="Parquet or CSV: user, item, perhaps time; in order of time")
    add("--test", type=Path, help="the same of the events to be found")
    add("--model", default="sasrec", choices=["sasrec", "hstu"])
    add("--history", type=Path, help="events between train and test that are known when testing")
    add("--epochs", type=int, default=2)
    add("--embedding", type=int, default=50)
    add("--blocks", type=int, default=2)
    add("--heads", type=int, default=1)
    add("--length", type=int, default=200, help="events of a user that the model sees")
    add("--negatives", type=int, default=128)
    add("--loss", default="sampled_softmax", choices=["softmax", "sampled_softmax", "BCE", "gBCE"])
    add("--similarity", default="cosine", choices=["cosine", "dot"])
    add("--temperature", type=float, default=0.05, help="logits are divided by it")
    add("--batch", type=int, default=128)
    add("--lr", type=float, default=1e-3)
    add("--dropout", type=float, default=0.2)
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="threads of torch (default: torch's own choice)")
    return parser.parse_args()


def main() -> None:
    """Train, time, maybe evaluate, print."""
    args = arguments()
    warnings.filterwarnings("ignore")
    seed_everything(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    train = read(args.train)
    kind = {"sasrec": SASRecModel, "hstu": HSTUModel}[args.model]
    model = kind(
        n_factors=args.embedding,
        n_blocks=args.blocks,
        n_heads=args.heads,
        session_max_len=args.length,
        dropout_rate=args.dropout,
        loss=args.loss,
        n_negatives=args.negatives,
        lr=args.lr,
        batch_size=args.batch,
        epochs=args.epochs,
        similarity_module_kwargs={"distance": args.similarity},
        lightning_module_kwargs={"logits_t": args.temperature},
        get_trainer_func=make_trainer,
        get_trainer_func_kwargs={"epochs": args.epochs},
    )
    started = time.perf_counter()
    model.fit(dataset_of(train))
    fit_s = time.perf_counter() - started

    # RecTools trains a copy of the trainer it was given.
    (watch,) = [c for c in model.fit_trainer.callbacks if isinstance(c, Stopwatch)]
    steady = watch.seconds[1:] or watch.seconds
    result = {
        "benchmark": "rectools_sequential",
        "epoch_s": [round(s, 2) for s in watch.seconds],
        "epoch_s_median": round(float(np.median(steady)), 2),
        "fit_s": round(fit_s, 2),
        "events": len(train),
        "users": int(train["user"].nunique()),
        "items": int(train["item"].nunique()),
        "parameters": sum(p.numel() for p in model.torch_model.parameters()),
        "threads": torch.get_num_threads(),
        "rectools": version("rectools"),
        "torch": torch.__version__,
        "settings": {k: v for k, v in vars(args).items() if not isinstance(v, Path)},
    }
    if args.test:
        known = train if args.history is None else pd.concat([train, read(args.history)])
        started = time.perf_counter()
        result |= evaluate(model, known, read(args.test))
        result["evaluate_s"] = round(time.perf_counter() - started, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
