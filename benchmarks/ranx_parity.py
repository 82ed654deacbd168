"""Do our metrics of lists agree with ranx's?

Random users: few distinct scores, so that ties are the rule and cross the ends of lists; lists
that end early, some at once; users who wanted nothing. `max_difference` is the largest gap of
any metric at any cut-off; above 1e-9 the exit status is 1. ranx runs in an environment of its
own: `make peers` first. `--write` keeps the answers to fewer users for the tests, which compare
with them wherever ranx is not installed.

ranx differs from ours in two definitions, each converted exactly where it is compared:
- its MAP divides by all relevant items, ours by those that fit into k places;
- it scores a user without relevant items 0, where ours is never asked about such a user.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch

from recsys.evaluation.metrics import METRICS
from recsys.lists.top_k import stable_top_k

ROOT = Path(__file__).parent.parent
ANSWERS = ROOT / "tests" / "recsys" / "evaluation" / "ranx_answers.json"
PEER = ROOT / "benchmarks" / "peers" / "ranx_metrics.py"
PEER_PYTHON = ROOT / ".venv-ranx" / "bin" / "python"
KS = (1, 3, 10, 25)  # 25 is past the end of every list
ITEMS = 20
RANX = {
    "Precision": "precision",
    "Recall": "recall",
    "HR": "hit_rate",
    "F1": "f1",
    "NDCG": "ndcg",
    "MRR": "mrr",
    "MAP": "map",
}
TOLERANCE = 1e-9
Values = dict[str, np.ndarray]  # [U, C] of each metric


@dataclass(frozen=True)
class User:
    """A score for each item, how long the list is, and which items were wanted."""

    scores: list[int]
    length: int
    relevant: list[int]

    @property
    def ranked(self) -> list[int]:
        """The list: by score, then the lower item, spelt out without tensors."""
        order = sorted(range(len(self.scores)), key=lambda item: (-self.scores[item], item))
        return order[: self.length]


def draw(count: int, seed: int) -> list[User]:
    """Random users."""
    random = Random(seed)
    return [
        User(
            scores=[random.randint(0, 4) for _ in range(ITEMS)],
            length=random.randint(0, random.randint(1, ITEMS)),
            relevant=sorted(random.sample(range(ITEMS), random.randint(0, 8))),
        )
        for _ in range(count)
    ]


def ask_ranx(users: list[User]) -> Values:
    """What ranx itself says, by our names."""
    names = {ours: [f"{theirs}@{k}" for k in KS] for ours, theirs in RANX.items()}
    asked = {
        "relevant": [user.relevant for user in users],
        "lists": [user.ranked for user in users],
        "metrics": [name for of in names.values() for name in of],
    }
    done = subprocess.run(
        [PEER_PYTHON, PEER], input=json.dumps(asked), text=True, capture_output=True, check=True
    )
    values = json.loads(done.stdout)
    return {ours: np.stack([values[name] for name in of], 1) for ours, of in names.items()}


def ask_ours(users: list[User]) -> Values:
    """What our metrics say, under ranx's definitions."""
    scores = torch.tensor([user.scores for user in users]).float()
    lengths = torch.tensor([user.length for user in users])
    _, ids = stable_top_k(scores, ITEMS)
    wanted = torch.zeros(len(users), ITEMS, dtype=torch.bool)
    for row, user in enumerate(users):
        wanted[row, user.relevant] = True
    has_place = torch.arange(ITEMS) < lengths.unsqueeze(1)
    relevant, total = wanted.gather(1, ids) & has_place, wanted.sum(1)
    judged, values = total > 0, {}
    for name, metric in METRICS.items():
        values[name] = np.zeros((len(users), len(KS)))
        values[name][judged] = metric(relevant[judged], total[judged], torch.tensor(KS)).numpy()
    all_relevant = total.clamp(min=1).numpy()[:, None]
    values["MAP"] *= np.minimum(all_relevant, KS) / all_relevant
    return values


def largest_difference(ours: Values, theirs: Values) -> dict[str, float]:
    """Of each metric. Raises KeyError where one is missing."""
    return {name: float(np.abs(values - theirs[name]).max()) for name, values in ours.items()}


def read_answers() -> tuple[list[User], Values]:
    """The users of the tests, and what ranx said of them."""
    rows = json.loads(ANSWERS.read_text())
    values = {name: np.array([row["ranx"][name] for row in rows]) for name in RANX}
    return [User(**row["user"]) for row in rows], values


def write_answers(users: list[User], values: Values) -> None:
    """Keep them, a user a line."""
    rows = [
        {"user": asdict(user), "ranx": {name: of[row].tolist() for name, of in values.items()}}
        for row, user in enumerate(users)
    ]
    ANSWERS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main() -> None:
    """Compare; keep answers where asked to; print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"rewrite {ANSWERS.name}")
    args = parser.parse_args()
    if not PEER_PYTHON.exists():
        sys.exit(f"{PEER_PYTHON} is missing: run `make peers` first")
    users = draw(args.users, args.seed)
    differences = largest_difference(ask_ours(users), ask_ranx(users))
    if args.write:
        few = draw(60, args.seed)
        write_answers(few, ask_ranx(few))
    worst = max(differences.values())
    print(json.dumps({"users": len(users), "max_difference": worst, "by_metric": differences}))
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
