"""What does ranx give to these lists?

Runs inside `.venv-ranx` (see `make peers`). Reads from its input, as JSON, `relevant`: the items
that each user wanted; `lists`: items, best first, of each user; `metrics`: names such as ndcg@10.
Prints {metric: its value for each user} as JSON. A user without relevant items scores 0.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
from numba.core.errors import NumbaTypeSafetyWarning
from numba.typed import List
from ranx import evaluate


def table(pairs: list[tuple[int, float]]) -> np.ndarray:
    """Items and their scores as ranx wants them."""
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    qrels = List([table([(item, 1.0) for item in wanted]) for wanted in asked["relevant"]])
    # it promises no order among tied scores: places are scores without ties
    run = List([table([(item, -float(r)) for r, item in enumerate(row)]) for row in asked["lists"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaTypeSafetyWarning)
        values = evaluate(qrels, run, asked["metrics"], return_mean=False, threads=1)
    print(json.dumps({name: values[name].tolist() for name in asked["metrics"]}))
