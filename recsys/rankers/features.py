"""What rankers read: features of the user, of the event and of items, and histories of items.

B requests, M items of each, L events of a history. R numbers describe a request, I an item.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from feature_store.columns import HISTORY, LAST_PLACE, LIST, LIST_PLACE
from feature_store.errors import ConfigError
from feature_store.examples import RowsOf
from feature_store.in_lists import WAYS
from feature_store.options import Options
from feature_store.schema import Feature
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.item_features import FeatureValues, ItemColumns, choose, input_of
from recsys.embeddings.layout import make_layout
from recsys.embeddings.options import EmbeddingsConfig
from recsys.embeddings.tables import Embeddings
from recsys.inputs import Compared, History
from recsys.layers.place_bias import PlaceBias
from recsys.layers.repeats import newest_ranks, repeats
from recsys.layers.spread import Spread
from recsys.layers.standardise import Standardise
from recsys.model import Loss
from recsys.objectives.listwise import list_softmax
from recsys.options import ModelConfig
from recsys.rankers.base import Ranker, State

_DAY_S = 86_400
REQUEST = "request"  # in a state: what is known of the request itself
ITEMS = "items"  # beside a state: the item rows [B, M] that are asked for


def vectors_of(history: str) -> str:
    """The name in a state of a history's vectors."""
    return f"{history}.vectors"


def item_rows_of(history: str) -> str:
    """The name in a state of the item rows of a history."""
    return f"{history}.rows"


def ranks_of(history: str) -> str:
    """The name in a state of how new the items of a history are."""
    return f"{history}.ranks"


class FeatureOptions(ModelConfig):
    """Options of rankers that read features."""

    width: int = Field(16, ge=1, description="D: width of embeddings, where no table has its own.")
    hidden: tuple[int, ...] = Field((128,), description="Hidden layers of the deep network.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of numbers that a training step hides."
    )
    listwise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the loss that asks which item of a shown list was chosen, by a "
        "softmax over the list; the rest asks of each item whether it was.",
    )
    position: bool = Field(
        False,
        description="Learn apart what the place in a shown list adds, so that scores, which know "
        "no place, are of items as such.",
    )
    user_features: tuple[str, ...] = Field((), description="Of the user; empty takes all.")
    item_features: tuple[str, ...] = Field((), description="Of the item; empty takes all.")
    context_features: tuple[str, ...] = Field(
        (), description="Of the event; empty takes all but those that tell how it ended."
    )

    compared: tuple[str, ...] = Field(
        (),
        description="Numbers of the event, such as its price, that are also read beside those of "
        "the list that it was shown in: their rank, and the difference from what was touched last.",
    )
    logs: tuple[str, ...] = Field(
        (), description="Numbers that are read as log(1 + x), such as prices, whose tails are long."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [8, 16, 32]},
        "hidden": {"choices": [[128], [256, 128], [512, 256]]},
        "dropout": {"low": 0.0, "high": 0.5},
    }


class HistoryOptions(Options):
    """Which of a user's earlier events a history holds."""

    event_types: tuple[str, ...] = Field((), description="Only these; empty takes all.")
    positives: bool = Field(False, description="Only events whose label is 1.")


class HistoryRankerOptions(FeatureOptions):
    """Options of rankers that read histories, too."""

    max_length: int = Field(50, ge=1, description="L: the last events of a history that are read.")
    delay_days: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="In training histories end so long before the event, as they do where "
        "requests are answered from what was known some days ago.",
    )
    histories: dict[str, HistoryOptions] = Field(
        {HISTORY: HistoryOptions()},
        min_length=1,
        description="Histories by name, such as one of clicks and one of purchases.",
    )


class RepeatsOptions(HistoryRankerOptions):
    """Options of rankers that may be told what a history holds already."""

    repeats: bool = Field(
        False,
        description="Say beside each history how often and how lately it holds the item that is "
        "asked for: what people come back to need not be learned item by item.",
    )


class FeatureRanker(Ranker):
    """Looks up features, each table once a step; a ranker adds what it makes of them.

    The item's features are those of the items in histories, from the same tables. Numbers are
    standardised. A subclass defines `rate`, and `digest` where requests take work that does not
    depend on the item.
    """

    Config: ClassVar[type[FeatureOptions]]

    @classmethod
    def rows_for(cls, config: ModelConfig) -> RowsOf:
        """Labelled events with the histories that the options name."""
        histories: Mapping[str, HistoryOptions] = getattr(config, "histories", {})
        return RowsOf(
            per="event",
            histories={name: history.event_types for name, history in histories.items()},
            positives=tuple(name for name, history in histories.items() if history.positives),
            labels=True,
            delay=round(getattr(config, "delay_days", 0.0) * _DAY_S),
            compared=getattr(config, "compared", ()),
        )

    def __init__(
        self, config: FeatureOptions, embeddings: EmbeddingsConfig, examples: Examples, seed: int
    ) -> None:
        super().__init__()
        schema = examples.schema
        self.listwise, self.position = config.listwise, config.position
        for option, does in (("listwise", "compares"), ("position", "learns from")):
            if getattr(config, option) and schema.list is None:
                raise ConfigError(
                    f"ranker.{option} {does} what was shown together, and the log has no lists: "
                    "leave it out, or name their column as the role 'list'"
                )
        users = choose(config.user_features, examples, "user", option="ranker.user_features")
        items = choose(config.item_features, examples, "item", option="ranker.item_features")
        told = [schema.label, *examples.task_columns]
        if examples.summary.parts.get("labels.negatives") is not None:
            # rows of drawn items carry the event's, which would tell the item that was chosen
            told += [schema.price, schema.cost]
        for option in ("context_features", "compared"):
            if leaks := [name for name in getattr(config, option) if name in told]:
                raise ConfigError(
                    f"ranker.{option} names {', '.join(leaks)}, which gives the label away"
                )
        # what is known only once the event has happened must not be asked before it
        outcome = [*told, schema.quantity, schema.event_type, schema.propensity]
        # where an item was shown is nothing that it is asked about with
        shown = (schema.list, schema.place)
        self.tasks = examples.tasks
        context = choose(
            config.context_features,
            examples,
            "context",
            option="ranker.context_features",
            without=(*outcome, *shown),
        )
        self.item = schema.item
        self.asked = (*users, *context)
        self.compared = tuple(
            Compared(of=name, way=way, list=schema.list or "")
            for name in config.compared
            for way in WAYS
        )
        histories = self.rows_for(config).histories
        length = getattr(config, "max_length", None)
        self.histories = tuple(History(schema.item, length, name) for name in histories)
        self.inputs = (*map(input_of, self.asked), *self.compared, *self.histories)
        features = (*self.asked, *items)
        embedded = [examples.spec(f.name) for f in features if f.embedded]
        layout = make_layout(embedded, config.width, embeddings)
        self.embeddings = Embeddings(layout, seed)
        self.items = ItemColumns(items, examples)
        numbers = [f for f in features if f.kind == "dense"]
        if self.position:
            places = (examples.training_ids(name) for name in (LIST_PLACE, LAST_PLACE))
            self.place_bias = PlaceBias(len(self.tasks), *places)
        columns = {f.name: examples.training_column(f) for f in numbers}
        if unread := [name for name in config.logs if name not in columns]:
            raise ConfigError(
                f"ranker.logs names {', '.join(unread)}; the numbers that the ranker reads are: "
                f"{', '.join(columns) or 'none'}"
            )
        columns |= {asked.name: examples.training_numbers(asked.name) for asked in self.compared}
        self.numbers = Standardise(columns, config.logs)
        self.own = {
            name: tuple(f"numbers.{constant}" for constant in self.numbers.names(name))
            for name in columns
        }
        widths = {f.name: layout.width(f.name) if f.embedded else 1 for f in features}
        self.request_widths = {f.name: widths[f.name] for f in self.asked}
        self.request_widths |= {asked.name: 1 for asked in self.compared}
        self.item_widths = {f.name: widths[f.name] for f in items}

    @property
    def request_width(self) -> int:
        """R."""
        return sum(self.request_widths.values())

    @property
    def item_width(self) -> int:
        """I."""
        return sum(self.item_widths.values())

    @property
    def judged_by(self) -> tuple[str, ...]:
        """The item, its labels, and in which list and where it was shown."""
        places = (LIST_PLACE, LAST_PLACE) if self.position else ()
        return (*super().judged_by, *((LIST,) if self.listwise else ()), *places)

    @property
    def together(self) -> str | None:
        """Lists come whole."""
        return LIST if self.listwise else None

    def loss_of(self, logits: Tensor, batch: Batch) -> Loss:
        """Binary cross-entropy of every label and, by `listwise`, of the first one a softmax over
        each list: both sums, that of a list about as large as those of its rows. The logits, which
        are of items as such, are taken where these were shown."""
        if self.position:
            logits = logits + self._of_places(batch)
        single = super().loss_of(logits, batch)
        if not self.listwise:
            return single
        lists = list_softmax(logits[:, 0], self.labels(batch)[:, 0], batch.id(LIST))
        parts = zip(single, lists, strict=True)
        return Loss(*(a + self.listwise * (b - a) for a, b in parts))

    def known_places(self, batch: Batch) -> State:
        """What a state is told of where the items of a batch stood; by default nothing, since what
        places add is added to logits."""
        return {}

    def forward(self, batch: Batch, step: int) -> Loss:
        """What the logits of a batch lose, whose items stand where they were shown."""
        items = batch.id(self.item).unsqueeze(1)
        inputs, places = self.inputs_of(batch), self.known_places(batch)
        return self.loss_of(self.logits(inputs, items, places).squeeze(1).float(), batch)

    def predict_shown(self, batch: Batch) -> Tensor:
        """Logits [B, tasks] of every row's item where it was shown, by `position`."""
        items = batch.id(self.item).unsqueeze(1)
        state = {**self.encode(self.inputs_of(batch)), **self.known_places(batch)}
        logits = self.score(state, items).squeeze(1)
        return logits + self._of_places(batch) if self.position else logits

    def _of_places(self, batch: Batch) -> Tensor:
        bias: Tensor = self.place_bias(batch.id(LIST_PLACE), batch.id(LAST_PLACE))
        return bias

    @abstractmethod
    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of items [B, M, I], from what `digest` left of their requests and,
        as ITEMS, their rows."""

    def digest(self, state: State) -> State:
        """What is kept of requests: by default all, which is REQUEST [B, R] and, of each history,
        `vectors_of` it [B, L, I] and `item_rows_of` it [B, L], which are 0 where it is padded."""
        return state

    def with_ranks(self, state: State) -> State:
        """A state and, for `repeats_in`, how new the items of each history are."""
        rows = {h.name: state[item_rows_of(h.name)] for h in self.histories}
        return {**state, **{ranks_of(name): newest_ranks(of) for name, of in rows.items()}}

    def repeats_in(self, history: str, state: State) -> Tensor:
        """How often and how lately a history holds the items that are asked for [B, M, REPEATS]."""
        return repeats(state[ITEMS], state[item_rows_of(history)], state[ranks_of(history)])

    def encode(self, inputs: dict[str, Tensor]) -> State:
        """What `digest` keeps."""
        state, _ = self._looked_up(inputs, None)
        return self.digest(state)

    def score(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M]."""
        values = self.items(items.flatten())
        vectors = self.embeddings(values.ids, values.bags)
        joined = self._joined(self.items.features, vectors, values.numbers)
        return self.rate({**state, ITEMS: items}, joined.unflatten(0, items.shape))

    def logits(
        self, inputs: dict[str, Tensor], items: Tensor, places: State | None = None
    ) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M], at `places` as `known_places` has them."""
        state, joined = self._looked_up(inputs, items)
        assert joined is not None
        return self.rate({**self.digest(state), **(places or {}), ITEMS: items}, joined)

    def _looked_up(
        self,
        inputs: dict[str, Tensor],
        items: Tensor | None,
        histories: tuple[History, ...] | None = None,
    ) -> tuple[State, Tensor | None]:
        """The state before it is digested, of all or some histories, and vectors [B, M, I] of item
        rows [B, M]."""
        histories = self.histories if histories is None else histories
        asked = FeatureValues.of(self.asked, inputs)
        ids, bags, numbers = dict(asked.ids), dict(asked.bags), dict(asked.numbers)
        rows = [inputs[history.name] for history in histories]
        rows += [] if items is None else [items]
        places = None
        if rows:
            read = torch.cat([part.flatten() for part in rows])
            if histories and torch.is_grad_enabled() and read.device.type == "cpu":
                # the same items stand in many histories, whose vectors are most of a step's memory
                read, places = read.unique(return_inverse=True)
            values = self.items(read)
            ids, bags, numbers = ids | values.ids, bags | values.bags, numbers | values.numbers
        vectors = self.embeddings(ids, bags)
        request = [self._joined(self.asked, vectors, numbers)]
        request += [self.numbers(c.name, inputs[c.name]).unsqueeze(1) for c in self.compared]
        state = {REQUEST: torch.cat(request, dim=1) if self.compared else request[0]}
        joined = []
        if rows:
            together = self._joined(self.items.features, vectors, numbers)
            kept = [row.flatten() != 0 for row in rows[: len(histories)]]
            kept += [] if items is None else [torch.ones_like(items.flatten(), dtype=torch.bool)]
            if places is None:  # in place: it is the largest tensor of a step
                together.mul_(torch.cat(kept).unsqueeze(1).to(together.dtype))
            else:
                together = Spread.apply(together, places, torch.cat(kept))
            parts = together.split([part.numel() for part in rows])
            joined = [part.unflatten(0, of.shape) for part, of in zip(parts, rows, strict=True)]
        for history, part, row in zip(histories, joined, rows, strict=False):
            state[item_rows_of(history.name)] = row
            state[vectors_of(history.name)] = part
        return state, None if items is None else joined[-1]

    def _joined(
        self,
        features: tuple[Feature, ...],
        vectors: dict[str, Tensor],
        numbers: dict[str, Tensor],
    ) -> Tensor:
        """Vectors and standardised numbers of features, side by side [n, D]."""
        columns = [
            vectors[f.name] if f.embedded else self.numbers(f.name, numbers[f.name]).unsqueeze(1)
            for f in features
        ]
        return torch.cat(columns, dim=1)
