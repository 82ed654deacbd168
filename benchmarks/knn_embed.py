"""Do mixtures over clusters beat a user's one vector, and smoothed ones plain ones?

HEP-TH: a tenth of every paper's citations is the test, for papers with at least five. Gowalla: the
published split. The vectors are those of BPR or ALS, fitted to all events before the test and
shared by the three arms; `single` asks with the base's own user vector and inner product. Options
were chosen by Recall on validation, with the vectors of BPR and for samples of 1,000 to 1,500
users: `OPTIONS`.

Recall and VectorDiversity (mean pairwise cosine distance, in a space of its own that is the same
for all) in per cent with 95 % bootstrap intervals over users; the differences are paired.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.trained import interval
from feature_store.columns import HISTORY
from feature_store.protocols import TEST
from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.data.block import Block
from recsys.data.examples import Examples, Interactions
from recsys.distributed import Group, join
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.item_facts import ItemFacts
from recsys.retrievers.als import ALS, ALSConfig
from recsys.retrievers.bpr import BPR, BPRConfig
from recsys.retrievers.fitted import binary_matrix
from recsys.retrievers.knn_embed import KNNEmbed, KNNEmbedConfig
from recsys.runs.evaluators import make_evaluator
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare

KS = (10, 20, 50)
FIGURES = tuple(f"{name}@{k}" for name in ("Recall", "VectorDiversity") for k in KS)
ARMS = ("single", "mixture", "smoothed")
BASES: dict[str, dict[str, BPRConfig | ALSConfig]] = {
    "hep_th": {
        "bpr": BPRConfig(learning_rate=0.05, iterations=60),
        "als": ALSConfig(alpha=40, regularisation=1.0),
    },
    "gowalla": {
        "bpr": BPRConfig(learning_rate=0.05, iterations=60),
        "als": ALSConfig(alpha=37.9, regularisation=1.58),
    },
}
DATA: dict[str, dict[str, Any]] = {
    "hep_th": {
        "data": {"path": "hep-th", "same_nodes": True},
        "split": {"protocol": "random", "min_user_events": 5},
    },
    "gowalla": {
        "data": {"path": "gowalla", "format": "adjacency"},
        "split": {"protocol": "fixed"},
    },
}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "hep_th": {
        "mixture": {"normalise": True, "clusters": 2048, "interests": 10},
        "smoothed": {"mixing_weight": 0.5, "neighbours": 3},
    },
    "gowalla": {
        "mixture": {"normalise": False, "clusters": 512, "interests": 5},
        "smoothed": {"mixing_weight": 0.8, "neighbours": 5},
    },
}
_PART = 512  # users whose histories are padded to the same length


def config_of(name: str, data: Path, folder: Path) -> RunConfig:
    """A data set under its protocol."""
    tree = DATA[name]
    source = {"source": "edge_list", **tree["data"], "path": str(data / tree["data"]["path"])}
    return parse_config(
        {
            "name": name,
            "seed": 1,
            "output": str(folder),
            "data": source,
            "split": tree["split"],
            "retriever": {"name": "knn_embed"},
            "trainer": {"refit": True},
            "evaluation": {"ks": list(KS)},
        }
    )


def arms_of(name: str) -> dict[str, KNNEmbedConfig]:
    """The config of every arm; a smoothed mixture shares the clusters of the plain one."""
    mixture, smoothing = OPTIONS[name]["mixture"], OPTIONS[name]["smoothed"]
    return {
        "single": KNNEmbedConfig(mode="single"),
        "mixture": KNNEmbedConfig(mode="mixture", **mixture),
        "smoothed": KNNEmbedConfig(mode="smoothed", **mixture, **smoothing),
    }


@torch.no_grad()
def vectors_of(
    config: BPRConfig | ALSConfig, events: Interactions, examples: Examples, seed: int
) -> tuple[Tensor, Tensor]:
    """Vectors [U, D] and [N, D] of the user and item rows; 0 of users without events."""
    kind: type[ALS] | type[BPR] = BPR if isinstance(config, BPRConfig) else ALS
    base = kind(config, examples, seed)  # type: ignore[arg-type]
    base.fit(events, examples)
    user = examples.schema.user
    users = torch.zeros(len(examples.vocabulary(user)), base.vectors.shape[1])
    order = torch.argsort(events.users, stable=True)
    rows, counts = events.users[order].unique_consecutive(return_counts=True)
    lists = events.items[order].split(counts.tolist())
    for part in counts.argsort().split(_PART):
        history = pad_sequence([lists[place] for place in part.tolist()], batch_first=True)
        found = base.encode({HISTORY: history, user: rows[part]})
        users[rows[part]] = found.vectors.squeeze(1)
    return users, base.vectors


def measure(
    model: KNNEmbed, requests: pa.Table, evaluator: Evaluator, group: Group
) -> dict[str, np.ndarray]:
    """The figures of every test user [U], in the order of users."""
    batches = (
        Block.of(requests.slice(first, _PART)).to_batch()
        for first in range(0, requests.num_rows, _PART)
    )
    users = evaluator.evaluate(model, batches, group).users
    order = np.argsort(users["user"])
    return {name: users[name][order] for name in FIGURES}


def compare(name: str, args: argparse.Namespace, folder: Path, group: Group) -> dict[str, Any]:
    """Figures of a data set by base and arm, and the gains of each arm over the one before."""
    config = config_of(name, args.data, folder)
    ingest_source(config.data, config.store_folder)
    examples = prepare(config, phases_of(config.trainer)[-1])
    facts = ItemFacts.of(examples, category=None, columns=(), power=0.5)
    evaluator = make_evaluator(config, examples, TEST, facts)
    requests = pq.read_table(examples.folder / "test.parquet", partitioning=None)
    if args.users:
        drawn = np.random.default_rng(0).permutation(requests.num_rows)[: args.users]
        requests = requests.take(pa.array(np.sort(drawn)))
    events = examples.interactions()
    summary: dict[str, Any] = {"protocol": examples.summary.protocol, "options": OPTIONS[name]}
    for base in args.bases:
        users, items = vectors_of(BASES[name][base], events, examples, args.seed)
        seen = binary_matrix(events, examples.num_items)
        seen.resize(len(users), examples.num_items)
        found = {}
        for arm, options in arms_of(name).items():
            started = time.perf_counter()
            model = KNNEmbed(options, examples, args.seed)
            model.fit_vectors(seen, users, items)
            found[arm] = measure(model, requests, evaluator, group)
            print(
                f"{name} {base} {arm} ({time.perf_counter() - started:.0f} s): "
                + json.dumps({figure: interval(found[arm][figure]) for figure in FIGURES}),
                file=sys.stderr,
            )
        summary["users"] = len(found["single"][FIGURES[0]])
        summary[base] = {
            "base": BASES[name][base].model_dump(mode="json"),
            **{arm: {f: interval(found[arm][f]) for f in FIGURES} for arm in ARMS},
            **{
                f"{after}_minus_{before}": {
                    f: interval(found[after][f] - found[before][f]) for f in FIGURES
                }
                for before, after in pairwise(ARMS)
            },
        }
    return summary


def main() -> None:
    """Measure every data set with every base and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--only", nargs="*", choices=list(DATA), default=list(DATA))
    parser.add_argument("--bases", nargs="*", choices=["bpr", "als"], default=["bpr", "als"])
    parser.add_argument("--users", type=int, help="test users, drawn at random; by default all")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, join("cpu") as group:
        found = {name: compare(name, args, Path(folder), group) for name in args.only}
    print(
        json.dumps(
            {
                "benchmark": "knn_embed",
                **found,
                "seed": args.seed,
                "minutes": round((time.perf_counter() - started) / 60, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
