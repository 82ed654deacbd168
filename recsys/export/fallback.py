"""Training events -> the list that a bundle answers with where it knows nothing of a history."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.examples import Examples
from recsys.retrievers.base import Candidates
from recsys.retrievers.popularity import (
    PopularityConfig,
    RecentPopularity,
    RecentPopularityConfig,
)
from recsys.serving.manifest import FallbackRecord


class FallbackList(NamedTuple):
    """Every candidate, best first, with one row [1, n] for everybody."""

    record: FallbackRecord
    list: Candidates


def popular_lately(examples: Examples, candidates: Tensor) -> FallbackList:
    """Item rows [n] by their training events of the last days, as `recent_popularity` counts them;
    those with equally many by all their training events, then by row.

    In a log without times all training events count.
    """
    events, config = examples.interactions(), RecentPopularityConfig()
    total = torch.bincount(events.items, minlength=examples.num_items).float()
    timed = examples.schema.clock == "time"
    lately = total
    if timed:
        recent = RecentPopularity(config, examples)
        recent.fit(events, examples)
        lately = recent.events
    keys = (-total[candidates], -lately[candidates])
    order = torch.from_numpy(np.lexsort([key.numpy() for key in keys]))
    rows = candidates[order]
    return FallbackList(
        FallbackRecord(
            model=config.name if timed else PopularityConfig().name,
            days=config.days if timed else None,
        ),
        Candidates(rows.unsqueeze(0), lately[rows].unsqueeze(0)),
    )
