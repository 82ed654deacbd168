"""How long do RecTools' rankers take over given vectors, seen items filtered?

Runs inside `.venv-peers` (see `make peers`) on a folder that `benchmarks.evaluation` wrote. Ranks
for all users with the ranker of RecTools' vector models (`ImplicitRanker`, over the compiled top-k
of implicit) and with that of its transformers (`TorchRanker`), each as those models call it. Prints
one JSON line: the seconds of each, wall-clock, after one warm-up on the first users.

    .venv-peers/bin/python benchmarks/peers/rectools_ranker.py FOLDER --threads 2
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from rectools.models.rank import Distance, ImplicitRanker, TorchRanker
from scipy.sparse import csr_matrix

WARM_UP = 512


def main() -> None:
    """Rank with both, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="users, items, seen and seen_offsets as .npy")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = ("users", "items", "seen", "seen_offsets")
    users, items, seen, offsets = (np.load(args.folder / f"{name}.npy") for name in names)
    values = np.ones(len(seen), dtype=np.float32)
    viewed = csr_matrix((values, seen, offsets), shape=(len(users), len(items)))
    viewed.sort_indices()
    rankers = {
        "implicit": ImplicitRanker(Distance.DOT, users, items, num_threads=args.threads),
        "torch": TorchRanker(Distance.DOT, "cpu", users, items),
    }
    seconds = {}
    for name, ranker in rankers.items():
        for count in (WARM_UP, len(users)):
            ids, known = np.arange(len(users))[:count], viewed[:count]
            start = time.perf_counter()
            ranker.rank(ids, k=args.k, filter_pairs_csr=known)
            seconds[name] = time.perf_counter() - start
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
