"""kNN-Embed: users as mixtures over clusters of another retriever's item vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import scipy.sparse as sp
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from feature_store.columns import HISTORY
from recsys.data.examples import Examples, Interactions
from recsys.inputs import History, Id
from recsys.lists.merging import BY_QUOTA
from recsys.options import ModelConfig, changed
from recsys.retrievers.als import ALS, ALSConfig
from recsys.retrievers.base import Queries
from recsys.retrievers.base_vectors import vectors_of
from recsys.retrievers.fitted import FittedRetriever, binary_matrix
from recsys.retrievers.mixtures import Mixtures, mixtures_of, nearest_users, spherical_clusters

_SMOOTHING = ("mixing_weight", "neighbours")
_IGNORED = {"smoothed": (), "mixture": _SMOOTHING, "single": ("clusters", "interests", *_SMOOTHING)}


class KNNEmbedConfig(ModelConfig):
    """El-Kishky et al., "kNN-Embed: locally smoothed embedding mixtures for multi-interest
    candidate retrieval", 2022."""

    name: Literal["knn_embed"] = "knn_embed"
    base: Path | None = Field(
        None,
        description="Folder of a finished run with the same data and split, whose vectors of users "
        "and items are used; by default those of als with its default options.",
    )
    mode: Literal["single", "mixture", "smoothed"] = Field(
        "smoothed",
        description="single: the base's own user vector; mixture: the means of the user's items "
        "in each cluster; smoothed: with those of the nearest users.",
    )
    clusters: int = Field(256, ge=1, description="C: of item vectors, by their directions.")
    interests: int = Field(5, ge=1, description="Clusters of a user that are asked for items.")
    mixing_weight: float = Field(
        0.8, ge=0, le=1, description="lambda: what a user counts for beside the neighbours."
    )
    neighbours: int = Field(20, ge=1, description="Nearest users that a mixture is smoothed with.")
    normalise: bool = Field(
        False, description="Cosine similarity instead of the base's inner product."
    )
    max_length: int = Field(
        50, ge=1, description="Events that are read of a history, where the user is not known."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "clusters": {"low": 16, "high": 1024, "log": True},
        "interests": {"low": 2, "high": 10},
        "mixing_weight": {"low": 0.5, "high": 1.0},
        "neighbours": {"low": 5, "high": 100, "log": True},
    }

    @model_validator(mode="after")
    def _check(self) -> Self:
        if ignored := changed(self, *_IGNORED[self.mode]):
            raise ValueError(f"mode = {self.mode!r} has no use for {' and '.join(ignored)}")
        return self


class KNNEmbed(FittedRetriever):
    """Each of a user's clusters fills its share of the list with items near its centroid.

    It knows users by their ids. Users without training events get the mixture of their history,
    unsmoothed, and those without a history the mean of what all others ask for.
    """

    needs_history = False
    merge = BY_QUOTA
    Config = KNNEmbedConfig
    config: KNNEmbedConfig
    vectors: Tensor
    clusters: Tensor
    interests: Tensor
    weights: Tensor
    known: Tensor
    mean: Tensor
    handicap: Tensor

    def __init__(self, config: KNNEmbedConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__(config, examples, seed)
        self.user = examples.schema.user
        self.inputs = (Id(self.user), History(examples.schema.item, config.max_length))

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Cluster the items, and mix the users."""
        users, items = self._base(interactions, examples)
        seen = binary_matrix(interactions, self.items)
        seen.resize(len(users), self.items)
        self.fit_vectors(seen, users, items)

    def fit_vectors(self, seen: sp.csr_array, users: Tensor, items: Tensor) -> None:
        """From who had what [U, N] and vectors [U, D] and [N, D]."""
        items, config = self._unit(items), self.config
        there = items.any(1)  # the base has no vector of others: they are in no cluster
        seen = sp.csr_array(seen.multiply(there.numpy()))
        seen.eliminate_zeros()
        known = torch.from_numpy(seen.count_nonzero(1) > 0)
        clusters = torch.zeros(len(items), dtype=torch.int64)  # all in one
        if config.mode == "single":
            mixtures = Mixtures(users.unsqueeze(1), torch.ones(len(users), 1))
        else:
            trained = torch.from_numpy(seen.count_nonzero(0)).nonzero().squeeze(1)
            clusters = spherical_clusters(items, trained, config.clusters, self.seed)
            nearest = None
            if config.mode == "smoothed":
                nearest = nearest_users(users, known, config.neighbours)
            mixtures = mixtures_of(
                seen, items, clusters, config.interests, config.mixing_weight, nearest
            )
        vectors = self._unit(mixtures.vectors)
        asked = (vectors * mixtures.weights.unsqueeze(2)).sum(1)
        longest = items.norm(dim=1).max()
        lowest = -2 * longest * torch.maximum(longest, vectors.norm(dim=2).max()) - 1
        self.register_buffer("handicap", torch.where(there, 0.0, lowest))
        self.register_buffer("vectors", items)
        self.register_buffer("clusters", clusters)
        self.register_buffer("interests", vectors)
        self.register_buffer("weights", mixtures.weights)
        self.register_buffer("known", known)
        self.register_buffer("mean", asked[known].mean(0))

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Vectors [B, M, D + 1] and weights [B, M] that sum to 1."""
        users = inputs[self.user]
        unsmoothed = self.mixture(inputs[HISTORY])
        known = self.known[users].unsqueeze(1)
        weights = torch.where(known, self.weights[users], unsmoothed.weights)
        vectors = torch.where(known.unsqueeze(2), self.interests[users], unsmoothed.vectors)
        return Queries(F.pad(vectors, (0, 1), value=1.0), weights)

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D + 1]; the last number ranks what the base does not know last."""
        return torch.cat([self.vectors[rows], self.handicap[rows].unsqueeze(1)], dim=1)

    def mixture(self, history: Tensor) -> Mixtures:
        """The clusters in histories [B, T], heaviest first, among equals that with the newest
        item; the mean of all users where there is no item."""
        keep = self.weights.shape[1]
        rows = F.pad(history, (0, keep))
        positions = torch.arange(rows.shape[1], device=rows.device)
        newer = positions > positions.unsqueeze(1)
        there = rows != 0
        again = (rows.unsqueeze(2) == rows.unsqueeze(1)) & newer
        there = there & ~again.any(2)
        clusters = self.clusters[rows]
        alike = (clusters.unsqueeze(2) == clusters.unsqueeze(1)) & there.unsqueeze(1)
        stands = there & ~(alike & newer).any(2)  # the newest item, for its cluster
        counts = alike.sum(2) * stands
        newest = (counts * rows.shape[1] + positions).topk(keep, dim=1).indices
        sizes = counts.gather(1, newest)
        members = alike.gather(1, newest.unsqueeze(2).expand(-1, -1, rows.shape[1]))
        means = members.to(self.vectors.dtype) @ self.vectors[rows]
        vectors = self._unit(means / sizes.clamp(min=1).unsqueeze(2)) * (sizes > 0).unsqueeze(2)
        total = sizes.sum(1, keepdim=True)
        first = (torch.arange(keep, device=rows.device) == 0).to(vectors.dtype)
        weights = torch.where(total > 0, sizes / total.clamp(min=1), first)
        mean = first.unsqueeze(1) * self.mean
        return Mixtures(torch.where(total.unsqueeze(2) > 0, vectors, mean), weights)

    def _unit(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.normalise else vectors

    def _base(self, interactions: Interactions, examples: Examples) -> tuple[Tensor, Tensor]:
        """Vectors [U, D] of users and [N, D] of items."""
        if self.config.base is not None:
            return vectors_of(self.config.base, interactions, examples)
        als = ALS(ALSConfig(), examples, self.seed)
        als.fit(interactions, examples)
        order = torch.argsort(interactions.users, stable=True)
        rows, counts = interactions.users[order].unique_consecutive(return_counts=True)
        events = interactions.items[order].split(counts.tolist())
        users = torch.zeros(len(examples.vocabulary(self.user)), als.vectors.shape[1])
        for chunk in torch.arange(len(rows)).split(1024):
            history = pad_sequence([events[user] for user in chunk.tolist()], batch_first=True)
            users[rows[chunk]] = als.encode({HISTORY: history}).vectors.squeeze(1)
        return users, als.vectors
