"""BPR: a factorisation that learns to rank a user's items above others."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.data.examples import Examples, Interactions
from recsys.inputs import Id
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.fitted import FittedRetriever, binary_matrix


class BPRConfig(ModelConfig):
    """Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009,
    fitted by the library implicit."""

    name: Literal["bpr"] = "bpr"
    factors: int = Field(64, ge=1, description="D - 1: width of the vectors without the bias.")
    learning_rate: float = Field(0.01, gt=0, description="Length of a step.")
    regularisation: float = Field(0.01, ge=0, description="Weight of the squared vectors.")
    iterations: int = Field(100, ge=1, description="Passes over the training events.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "factors": {"low": 16, "high": 256, "log": True},
        "learning_rate": {"low": 0.001, "high": 0.2, "log": True},
        "regularisation": {"low": 0.0001, "high": 0.1, "log": True},
        "iterations": {"low": 20, "high": 200, "log": True},
    }


class BPR(FittedRetriever):
    """A vector for each user and item; an item's last number is its bias, a user's is 1.

    It knows users by their ids, not by their histories. Users without training events get the
    mean vector of those with some, and items without the lowest bias and nothing else.
    """

    needs_history = False
    Config = BPRConfig
    config: BPRConfig
    users: Tensor
    vectors: Tensor

    def __init__(self, config: BPRConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__(config, examples, seed)
        self.user = examples.schema.user
        self.inputs = (Id(self.user),)

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Stochastic gradient descent over pairs of items, in one thread: more of them race, and
        no two fits are alike.

        Raises ConfigError when the factors grow without bounds.
        """
        from implicit.cpu.bpr import BayesianPersonalizedRanking  # see als.py
        from implicit.recommender_base import ModelFitError

        seen = sp.csr_matrix(binary_matrix(interactions, self.items))
        model = BayesianPersonalizedRanking(
            factors=self.config.factors,
            learning_rate=self.config.learning_rate,
            regularization=self.config.regularisation,
            iterations=self.config.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        try:
            model.fit(seen, show_progress=False)
        except ModelFitError:
            raise ConfigError(
                f"bpr with learning_rate = {self.config.learning_rate} found no finite factors: "
                "lower it"
            ) from None
        trained_users, trained_items = (np.flatnonzero(seen.getnnz(axis)) for axis in (1, 0))
        trained = model.user_factors[trained_users]
        users = np.tile(trained.mean(0), (len(examples.vocabulary(self.user)), 1))
        users[trained_users] = trained
        vectors = np.zeros_like(model.item_factors)
        vectors[:, -1] = model.item_factors[trained_items, -1].min()
        vectors[trained_items] = model.item_factors[trained_items]
        self.register_buffer("users", torch.from_numpy(users))
        self.register_buffer("vectors", torch.from_numpy(vectors))

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D]."""
        return single_interest(self.users[inputs[self.user]])

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        return self.vectors[rows]
