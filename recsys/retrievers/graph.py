"""Vectors of users and items that are propagated over the graph of who had what.

U users, N items, D width, O width of what propagation makes, n negatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.columns import TARGET
from feature_store.examples import RowsOf
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.embeddings.layout import make_layout
from recsys.embeddings.options import EmbeddingsConfig, PerFeature
from recsys.embeddings.plain import PlainEmbeddings
from recsys.embeddings.tables import Bag, Embeddings
from recsys.inputs import Id
from recsys.layers.propagation import Bipartite
from recsys.lists.pairs import Pairs
from recsys.model import Loss
from recsys.objectives.loss_kinds import BPR, AnyLoss
from recsys.objectives.objective import Objective, ObjectiveConfig
from recsys.objectives.targets import targets_of_events
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.propagation_kinds import AnyPropagation, LightGCNKind
from recsys.retrievers.trained import TrainedRetriever

Vectors = tuple[Tensor, Tensor]


class GraphConfig(ObjectiveConfig):
    """He et al., "LightGCN", SIGIR 2020; Purificato et al., "Sheaf4Rec", 2023. Without propagation
    and with loss = 'bce', the embeddings of a bipartite graph of El-Kishky et al., "TwHIN", KDD
    2022."""

    name: Literal["graph"] = "graph"
    propagation: AnyPropagation = Field(
        LightGCNKind(), description="How vectors travel along the edges."
    )
    regularisation: float = Field(
        1e-4, ge=0, description="Of the vectors in a batch before they are propagated, squared."
    )
    loss: AnyLoss = Field(
        BPR(), description="What is minimised; by its name, or as a table with its options."
    )
    temperature: float = Field(1.0, gt=0, description="What scores are divided by in the loss.")
    normalise: bool = Field(False, description="Cosine similarity instead of inner product.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [32, 64, 128]},
        "propagation.layers": {"low": 1, "high": 4},
        "regularisation": {"low": 1e-6, "high": 1e-1, "log": True},
        "loss": {"choices": ["bpr", "softmax"]},
        "negatives": {"choices": [128, 512, 2048]},
    }


class Graph(TrainedRetriever):
    """A vector for each user and item, from the same propagation over all training events.

    It knows users by their ids, not by their histories. Users without training events get the
    mean vector of those with some.
    """

    rows_of = RowsOf(per="event")
    needs_history = False
    Config = GraphConfig
    config: GraphConfig

    def __init__(
        self,
        config: GraphConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.user, self.item = examples.schema.user, examples.schema.item
        self.inputs = (Id(self.user),)
        self.embeddings = Nodes(config, embeddings, examples, seed)
        targets = partial(targets_of_events, examples)
        self.objective = Objective(config, examples, seed, targets)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, O]."""
        vectors = self.embeddings({self.user: inputs[self.user]})[self.user]
        return single_interest(self.objective.unit(vectors))

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, O]."""
        return self.objective.unit(self.embeddings({self.item: rows})[self.item])

    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss of each row's target, with `regularisation / 2` of the squares of the vectors
        of the user, the target and one negative, before propagation. What a user has had in
        training is no negative of theirs."""
        users, targets = (batch.id(name).contiguous() for name in (self.user, TARGET))
        first = self.embeddings.first()
        of_users, of_items = self.embeddings.propagate(*first)
        drawn = self.objective.draw(targets, step, lambda: self._hardest(users, of_users, of_items))
        rows, count = torch.cat([targets, drawn.ids]), len(targets)
        queries, items = F.embedding(users, of_users), F.embedding(rows, of_items)
        own = Pairs(*self.embeddings.graph.edges_of(users))
        total = self.objective(queries, items[:count], items[count:], targets, drawn, own).sum()
        if self.config.regularisation:
            squares = F.embedding(rows, first[1]).square().sum(1)
            squares = squares[:count] + squares[count:].mean()
            squares = squares + F.embedding(users, first[0]).square().sum(1)
            total = total + self.config.regularisation / 2 * squares.sum()
        return Loss(total, total.new_tensor(count))

    @torch.no_grad()
    def _hardest(self, users: Tensor, of_users: Tensor, of_items: Tensor) -> Tensor:
        rows = self.objective.sampler.everything()
        queries = self.objective.unit(of_users[users]).unsqueeze(1)
        items = self.objective.unit(of_items[rows])
        return self.objective.hardest(queries, self.embeddings.graph.items_of(users), items, rows)


class Nodes(Embeddings):
    """Embeddings of users and items, propagated.

    All nodes are looked up and propagated at once: in every training step, and once after every
    change of mode or of weights otherwise.
    """

    def __init__(
        self, config: GraphConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int
    ) -> None:
        self.user, self.item = examples.schema.user, examples.schema.item
        len(examples.vocabulary(self.user))  # a graph has a row for each, and says so
        specs = [examples.spec(self.user), examples.spec(self.item)]
        layout = make_layout(specs, config.width, embeddings)
        for spec in specs:
            layout.require(spec.name, config.width)
        super().__init__(layout, seed)
        self.graph = Bipartite(_adjacency(examples, specs[0].rows, specs[1].rows))
        self.propagation = config.propagation.make(self.graph, config.width)
        self._propagated: Vectors | None = None

    def first(self) -> Vectors:
        """Vectors [U, D] and [N, D] of all users and items before they are propagated."""
        tables = {name: self._first_rows(name) for name in (self.user, self.item)}
        device = self.graph.users.device
        ids = {
            name: torch.arange(self.layout.features[name].rows, device=device)
            for name, rows in tables.items()
            if rows is None
        }
        vectors = super().forward(ids) if ids else {}
        users, items = (vectors[name] if rows is None else rows for name, rows in tables.items())
        return users, items

    def propagate(self, users: Tensor, items: Tensor) -> Vectors:
        """Vectors [U, O] and [N, O] from those of `first`."""
        return self.propagation(self.graph, users, items)  # type: ignore[no-any-return]

    def forward(
        self, ids: dict[str, Tensor], bags: dict[str, Bag] | None = None
    ) -> dict[str, Tensor]:
        """Propagated vectors: ids [...] of users or items -> [..., O]."""
        users, items = self.propagated()
        vectors = {self.user: users, self.item: items}
        return {name: vectors[name][rows] for name, rows in ids.items()}

    @torch.no_grad()
    def propagated(self) -> Vectors:
        """[U, O] and [N, O], kept until the mode or the weights change; every process of several
        must ask for them together where tables are sharded."""
        if self._propagated is None or self.training:
            users, items = self.propagate(*self.first())
            trained = self.graph.degrees[0] > 0
            mean = users[trained].mean(0).nan_to_num()
            self._propagated = torch.where(trained.unsqueeze(1), users, mean), items.detach()
        return self._propagated

    def train(self, mode: bool = True) -> Nodes:
        """Forget what was propagated: weights may change now, or have changed."""
        self._propagated = None
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *rest: Any) -> None:
        self._propagated = None
        super()._load_from_state_dict(state_dict, *rest)

    def plain(self) -> PlainEmbeddings:
        """The propagated users alone, as a table that knows no graph: requests need no more."""
        users, _ = self.propagated()
        spec = self.layout.features[self.user]
        layout = make_layout([spec], users.shape[1], PerFeature())
        return PlainEmbeddings(layout, {spec.table: nn.Embedding.from_pretrained(users.clone())})

    def _first_rows(self, feature: str) -> Tensor | None:
        """The vectors of all ids of a feature where they are a table's first rows, in order."""
        lookups = self.layout.lookups[feature]
        if len(lookups) > 1 or lookups[0].salt is not None or lookups[0].table not in self.tables:
            return None
        table = self.tables[lookups[0].table]
        assert isinstance(table, nn.Embedding)
        return table.weight[: self.layout.features[feature].rows]


def _adjacency(examples: Examples, users: int, items: int) -> sp.csr_array:
    """[U, N]: who had what, of the events that are trained on; unknown ones have no edges."""
    events = examples.interactions()
    rows, columns = events.users.numpy(), events.items.numpy()
    edges = (rows > 0) & (columns > 0)
    shape, ones = (users, items), np.ones(int(edges.sum()), np.float32)
    return sp.csr_array((ones, (rows[edges], columns[edges])), shape=shape)
