"""Where a retriever of several stages loses what there was to be found.

B users, L targets, n items of a stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from recsys.lists.funnel import Stage
from recsys.lists.pairs import contains
from recsys.lists.stage_names import CANDIDATES
from recsys.statistics.bootstrap import mean_intervals, ratio_intervals

FUNNEL = "funnel"
"""What `metrics.json` calls it."""
LATENCY = "latency_ms"
"""What `seconds.json` calls milliseconds of a request, by stage."""
RECALL, ITEMS = "Recall", "items"


def column(stage: str, what: str) -> str:
    """The column per user of what is left after a stage."""
    return f"stage:{stage}:{what}"


def stage_columns(
    stages: Sequence[Stage], targets: Tensor, money: Mapping[str, Tensor], k: int
) -> dict[str, Tensor]:
    """Of every stage and user [B]: how many items there are, the share of the targets [B, L] among
    them, and what the targets among them are worth, for each kind of `money` [B, L].

    Of what people are shown these are the first k, and the stage bears the cut-off in its name.
    """
    total = (targets != 0).sum(1)
    columns = {}
    for stage in stages:
        items = stage.items[:, :k] if stage.shown else stage.items
        name = f"{stage.name}@{k}" if stage.shown else stage.name
        held = contains(items, targets) & (targets != 0)
        columns[column(name, ITEMS)] = (items != 0).sum(1)
        columns[column(name, RECALL)] = held.sum(1).double() / total.clamp(min=1)
        for kind, values in money.items():
            columns[column(name, kind)] = (values * held).sum(1)
    return columns


def stages_of(users: Mapping[str, np.ndarray]) -> list[str]:
    """The stages that columns per user know, in their order."""
    end = f":{RECALL}"
    return [name[len("stage:") : -len(end)] for name in users if _of_stage(name, end)]


def label_of(stage: str) -> str:
    """A stage's own name, without the cut-off at which it is judged."""
    return stage.partition("@")[0]


def losses(stages: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The recall that each stage of a summary has lost since the one before it; None of generators,
    and of what they find together."""
    recall = [stage["metrics"][RECALL] for stage in stages]
    merged = [label_of(stage["stage"]) for stage in stages].index(CANDIDATES)
    lost = [before - after for before, after in pairwise(recall[merged:])]
    return [None] * (merged + 1) + lost


def _of_stage(name: str, end: str) -> bool:
    return name.startswith("stage:") and name.endswith(end)


def funnel_summary(
    users: Mapping[str, np.ndarray], totals: Mapping[str, str], replicates: int
) -> list[dict[str, Any]]:
    """What is left after every stage, as `metrics.json` holds it: the mean number of items, recall,
    and of money the mean and, as NAMECapture, its share of all; with 95 % intervals over users.

    `totals` names, for each kind of money that is counted, the column of what there was of it.
    """
    summary = []
    for stage in stages_of(users):
        kinds = [kind for kind in totals if column(stage, kind) in users]
        names = [RECALL, *kinds]
        values = np.stack([users[column(stage, name)] for name in names], axis=1)
        metrics = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
        low, high = mean_intervals(values, replicates=replicates)
        ends = dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))
        for kind in kinds:
            above, below = (users[name][:, None] for name in (column(stage, kind), totals[kind]))
            if below.sum() > 0:
                metrics[f"{kind}Capture"] = float(above.sum() / below.sum())
                a, b = ratio_intervals(above, below, replicates=replicates)
                ends[f"{kind}Capture"] = (float(a[0]), float(b[0]))
        summary.append(
            {
                "stage": stage,
                "items": float(users[column(stage, ITEMS)].mean()),
                "metrics": metrics,
                "ci95": {name: list(pair) for name, pair in ends.items()},
            }
        )
    return summary
