"""Retrievers that learn by gradient."""

from __future__ import annotations

from recsys.model import TrainedModel
from recsys.objectives.objective import Objective, ObjectiveConfig
from recsys.retrievers.base import VectorRetriever


class TrainedRetriever(VectorRetriever, TrainedModel):
    """A vector retriever that learns by gradient, from what its `objective` draws."""

    config: ObjectiveConfig
    objective: Objective
