"""Scorer: raw requests in, probabilities out, from a ranker of a bundle alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import LABEL
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from recsys.inputs import Id, Number, Requests
from recsys.lists.worth import Worth, worth
from recsys.serving.answering import Answering
from recsys.serving.bundle import Bundle
from recsys.serving.golden import GOLDEN, TOLERANCE, expected_of
from recsys.serving.manifest import RankerRecord
from recsys.serving.requests import by_names_of_log, frame_of, table_of
from recsys.serving.users import KnownUsers

PROGRAM, PROBABILITY = "ranker.pt2", "probability"
PRICES, COSTS = "prices.npy", "costs.npy"
"""The last known ones of every item row [N], 0 where there is none."""


def expected_column(what: Worth) -> str:
    """The column of an expected revenue or profit."""
    return f"expected_{what}"


class Scorer(Answering):
    """Answers from a ranker of a bundle, `part`; by default the only one."""

    def __init__(
        self, bundle: Bundle, part: str | None = None, users: KnownUsers | None = None
    ) -> None:
        super().__init__(bundle, part, users)
        self.part, self.record = bundle.part(RankerRecord, part)
        self.program = bundle.program(self.part, PROGRAM)
        self.prices = self._of_items(PRICES) if self.record.priced else None
        self.costs = self._of_items(COSTS) if self.record.costed else None

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the ranker has logits of."""
        return self.record.tasks

    def score(
        self,
        requests: pd.DataFrame | pa.Table,
        task: str = LABEL,
        expect: Worth | None = None,
    ) -> pd.DataFrame:
        """`score_table` of a frame or a table, as a frame."""
        scored = self.score_table(table_of(requests), task, expect)
        if isinstance(requests, pd.DataFrame):  # as it came
            made = (PROBABILITY, *([] if expect is None else [expected_column(expect)]))
            return requests.assign(**{name: scored.column(name).to_numpy() for name in made})
        return frame_of(scored)

    def score_table(
        self, requests: pa.Table, task: str = LABEL, expect: Worth | None = None
    ) -> pa.Table:
        """The requests with a column `probability`, that of a task, in their order; where money is
        to be expected, beside it `expected_revenue` or `expected_profit`: the probability times the
        price, or that less the cost. Prices and costs are those that requests bring, in the log's
        columns, and otherwise the last known ones; an unknown one makes a row worth 0.

        A request is a row with the item's id and what else the model reads; `user` and `item` may
        stand for the log's names of ids. Features of known users may be absent where their ids
        are there, others are then unknown. Raises DataError for requests without items, for columns
        of the wrong type, for a task that the ranker was not trained on, and where money is to be
        expected and the log has none.
        """
        if task not in self.tasks:
            raise DataError(
                f"{self.bundle.folder} has no task {task!r}; it has: {', '.join(self.tasks)}"
            )
        whole, items = self._pairs(requests)
        money = None if expect is None else self._worth(expect, whole, items)
        logits = self.logits(whole, items)[:, 0, self.tasks.index(task)]
        probability = torch.sigmoid(logits)
        made = {PROBABILITY: probability}
        if expect is not None and money is not None:
            made[expected_column(expect)] = probability.double() * money
        for name, values in made.items():
            if name in requests.column_names:
                requests = requests.drop_columns([name])
            requests = requests.append_column(name, pa.array(values.numpy()))
        return requests

    def _worth(self, what: Worth, requests: pa.Table, items: Tensor) -> Tensor:
        """What each request's item [B, 1] brings when it is bought [B]."""
        schema = self.bundle.schema
        if self.prices is None or (what == "profit" and self.costs is None):
            lacks = "price" if self.prices is None else "cost"
            raise DataError(
                f"{self.bundle.folder} knows no {lacks} of items, which an expected {what} is made "
                f"of: name its column with the {lacks} role in the schema of the log"
            )
        prices = self._told(requests, schema.price, self.prices[items.squeeze(1)])
        costs = self.costs
        if costs is not None:
            costs = self._told(requests, schema.cost, costs[items.squeeze(1)])
        return worth(what, prices, costs)

    def _of_items(self, file: str) -> Tensor:
        """Money of every item row [N]."""
        return torch.from_numpy(np.load(self.bundle.part_file(self.part, file))).double()

    def _told(self, requests: pa.Table, column: str | None, known: Tensor) -> Tensor:
        """What requests say of a price or a cost [B], and where they do not what was known last."""
        if column is None or column not in requests.column_names:
            return known
        told = Number(column, unknown="nan").from_requests(
            Requests(requests, self.bundle.vocabularies_of(self.part))
        )
        return torch.where(told.isnan(), known, told.double())

    def logits(self, requests: pa.Table, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M] for requests that bring all they know."""
        with torch.no_grad():
            logits: Tensor = self.program(self._inputs(requests), items)
        return logits

    def encode(self, requests: pa.Table) -> tuple[dict[str, Tensor], Tensor]:
        """Tensors of the program's inputs for requests that bring all they know, and the rows
        [B, 1] of their items."""
        return self._inputs(requests), self._items(requests)

    def _inputs(self, requests: pa.Table) -> dict[str, Tensor]:
        """What programs read of requests that bring all they know."""
        asked = Requests(requests, self.bundle.vocabularies_of(self.part))
        return {one.name: one.from_requests(asked) for one in self.record.inputs}

    def _pairs(self, requests: pa.Table) -> tuple[pa.Table, Tensor]:
        """Requests that bring all they know, under the log's names, and their items' rows [B, 1].

        Raises DataError for requests without items, and where there are none.
        """
        if not requests.num_rows:
            raise DataError("no requests")
        asked = by_names_of_log(requests, self.bundle.schema)
        if self.bundle.schema.item not in asked.column_names:
            raise DataError(
                f"requests need a column {self.bundle.schema.item!r} of item ids; they have: "
                f"{', '.join(asked.column_names)}"
            )
        whole = self._with_users(asked)
        return whole, self._items(whole)

    def _items(self, requests: pa.Table) -> Tensor:
        """The rows [B, 1] of the requests' items."""
        asked = Requests(requests, self.bundle.vocabularies_of(self.part))
        return Id(self.bundle.schema.item).from_requests(asked).unsqueeze(1)

    def _with_users(self, requests: pa.Table) -> pa.Table:
        """Add features of known users that the requests do not bring."""
        user, known = self.bundle.schema.user, self.known
        missing = [
            feature.name
            for feature in self.record.inputs
            if feature.name not in requests.column_names and feature.name in known.column_names
        ]
        if not missing or user not in requests.column_names:
            return requests
        try:
            features = known.of(requests.column(user).combine_chunks(), missing)
        except DataError as error:
            raise DataError(f"column {user!r} of the requests cannot be read: {error}") from None
        for name in missing:
            requests = requests.append_column(name, features.column(name))
        return requests

    def verify(self) -> None:
        """Replay the golden requests. Raises DataError where a logit differs."""
        golden = read_parquet(self.bundle.part_file(self.part, GOLDEN))
        logits = self.logits(golden, self._items(golden)).squeeze(1)
        for task, answers in zip(self.tasks, logits.T, strict=True):
            expected = torch.tensor(golden.column(expected_of(task)).to_pylist())
            slack = TOLERANCE * expected.abs().clamp(min=1)
            wrong = (answers - expected).abs() > slack
            if wrong.any():
                row = int(wrong.int().argmax())
                raise DataError(
                    f"{self.bundle.folder}: golden request {row} has the logit {answers[row]:.4f} "
                    f"of {task}, the training stack's was {expected[row]:.4f}: do not serve it, "
                    "export again"
                )
