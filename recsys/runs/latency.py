"""How long a request takes, stage by stage, one request at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch

from feature_store.columns import HISTORY
from recsys.data.batch import Batch
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Retriever

_WARM_UP, _REQUESTS = 5, 200
WHOLE = "all stages"


def stage_latency(
    retriever: Retriever,
    requests: Iterable[Batch],
    k: int,
    device: torch.device,
    *,
    exclude_seen: bool,
) -> dict[str, dict[str, float]]:
    """Milliseconds of every stage, and of all together: the median and the 99th percentile over
    some hundred `requests` of one row, with the models of the training stack on this machine."""
    taken: dict[str, list[float]] = {}
    for number, request in enumerate(islice(requests, _WARM_UP + _REQUESTS)):
        request = request.to(device)
        history = request.jagged(HISTORY)
        seen = Pairs.of_lists(history.values(), history.lengths()) if exclude_seen else None
        began = last = time.perf_counter()
        for stage in retriever.stages(request, k, seen):
            stage.scores.sum().item()  # a GPU answers when it is asked
            now = time.perf_counter()
            if number >= _WARM_UP:
                taken.setdefault(stage.name, []).append(now - last)
            last = time.perf_counter()
        if number >= _WARM_UP:
            taken.setdefault(WHOLE, []).append(last - began)
    return {
        name: {
            f"p{percent}": round(1e3 * float(np.percentile(seconds, percent)), 3)
            for percent in (50, 99)
        }
        for name, seconds in taken.items()
    }
