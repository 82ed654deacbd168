"""Recommender: raw requests in, raw items out, from a bundle alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.inputs import History
from recsys.lists.diversify import diversify
from recsys.serving.bundle import Bundle
from recsys.serving.categories import categories_of
from recsys.serving.requests import table_of

_POOL = 10  # candidates for each place of a diverse list


class Recommender:
    """Answers from one bundle.

    A request is a row with the user's `history` (raw item ids, oldest first) and whichever user
    features the model reads; features that are absent are unknown. A model that reads times
    takes them from `history_time` (a list beside the history) and `time` (of the request, by
    default that of its last event), as timestamps or seconds since 1970. Known users need no
    more than their id.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._seen = History(bundle.schema.item)
        vocabulary = bundle.vocabularies[bundle.schema.item]
        rows = vocabulary.encode(bundle.item_ids)
        self._place = np.full(len(vocabulary), -1)
        self._place[rows] = np.arange(len(rows))
        self._users: pa.Table | None = None
        self._titles: dict[Any, str] | None = None
        self._categories: dict[str, Tensor] = {}

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = True) -> Recommender:
        """Open a bundle; replays its golden requests unless `verify` is off.

        Raises DataError when files were altered or an answer differs.
        """
        found = cls(Bundle.open(folder))
        if verify:
            golden = found.bundle.golden()
            inputs, seen = found.encode(golden)
            found.bundle.check_golden(inputs, seen)
        return found

    def recommend(
        self,
        users: Sequence[Any] | None = None,
        *,
        requests: pd.DataFrame | pa.Table | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        category: str | None = None,
    ) -> pd.DataFrame:
        """The k best items, for known users by id or for requests.

        With `diversity` above 0 the k are chosen among ten times as many so that they differ in
        `category`, a column of the catalogue: every pair of items that do is worth as much as
        that much score, see `recsys.lists.diversify`. Their scores need not descend then.

        Returns a frame with the columns user, rank (from 1), item, score, and title where the
        catalogue has one. A user without enough candidates gets a shorter list.

        Raises:
            DataError: unknown users, an empty history where the model needs one, or columns
                of the wrong type, or a category that the catalogue lacks; the message names them.
        """
        if k < 1:
            raise DataError(f"k must be at least 1, not {k}")
        if (users is None) == (requests is None):
            raise DataError("give either users or requests")
        if not 0 <= diversity < float("inf"):
            raise DataError(f"diversity must be at least 0 and finite, not {diversity}")
        if diversity and category is None:
            raise DataError("diversity needs a category: name a column of the catalogue")
        categories = None if category is None else self._read_categories(category)
        table = self.requests_of(list(users)) if users is not None else table_of(requests)
        inputs, seen = self.encode(table)
        queries = self.bundle.queries(inputs)
        hidden = seen if exclude_seen else None
        ask = _POOL * k if diversity else k
        scores, places = self.bundle.index.search(queries, ask, hidden, self.bundle.merge)
        if diversity and categories is not None:
            scores, places = diversify(scores, places, categories, diversity, k)
        return self._frame(self._names(table), scores, places)

    def requests_of(self, users: list[Any]) -> pa.Table:
        """The newest requests of known users. Raises DataError naming the unknown ones."""
        table = self._known()
        column = table.column(self.bundle.schema.user).combine_chunks()
        try:
            wanted = pa.array(users).cast(column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"users must be of type {column.type}: {error}") from None
        places = pc.index_in(wanted, value_set=column)
        if places.null_count:
            unknown = wanted.filter(places.is_null()).to_pylist()
            raise DataError(
                f"unknown users: {', '.join(map(str, unknown[:5]))}; "
                "pass requests with their histories instead"
            )
        return table.take(places)

    def users(self) -> list[Any]:
        """Ids of all known users."""
        return self._known().column(self.bundle.schema.user).to_pylist()

    def _known(self) -> pa.Table:
        if self._users is None:
            self._users = pq.read_table(self.bundle.folder / "users.parquet", partitioning=None)
        return self._users

    def encode(self, requests: pa.Table) -> tuple[dict[str, Tensor], Tensor]:
        """Tensors of the bundle's inputs, and the places [B, L] of seen items, padded with -1."""
        rows = self._history(requests)
        vocabularies = self.bundle.vocabularies
        inputs = {
            asked.name: asked.from_requests(requests, vocabularies) for asked in self.bundle.inputs
        }
        return inputs, torch.from_numpy(self._place[rows])

    def _history(self, requests: pa.Table) -> np.ndarray:
        """Rows [B, L] of everything that was seen, padded with 0 behind."""
        if not requests.num_rows:
            raise DataError("no requests")
        name = self._seen.name
        if name not in requests.column_names:
            have = ", ".join(requests.column_names)
            raise DataError(f"requests need a column {name!r} of item ids; they have: {have}")
        rows: np.ndarray = self._seen.from_requests(requests, self.bundle.vocabularies).numpy()
        if self.bundle.manifest["needs_history"]:
            empty = np.flatnonzero(~rows.any(1))
            if len(empty):
                name = self._names(requests)[int(empty[0])]
                raise DataError(
                    f"request {int(empty[0])} (user {name}) has no known item in its history, and "
                    f"{self.bundle.manifest['retriever']} needs one: answer it by popularity"
                )
        return rows

    def _names(self, requests: pa.Table) -> list[Any]:
        key = self.bundle.schema.user
        if key in requests.column_names:
            return requests.column(key).to_pylist()
        return list(range(requests.num_rows))

    def _frame(self, names: list[Any], scores: Tensor, places: Tensor) -> pd.DataFrame:
        row, rank = (places >= 0).nonzero(as_tuple=True)
        items = self.bundle.item_ids.take(pa.array(places[row, rank].numpy())).to_pylist()
        frame = pd.DataFrame(
            {
                "user": [names[r] for r in row.tolist()],
                "rank": (rank + 1).numpy(),
                "item": items,
                "score": scores[row, rank].numpy(),
            }
        )
        titles = self._read_titles()
        if titles:
            frame["title"] = [titles.get(item, "") for item in items]
        return frame

    def _read_categories(self, column: str) -> Tensor:
        if column not in self._categories:
            self._categories[column] = categories_of(self.bundle, column)
        return self._categories[column]

    def _read_titles(self) -> dict[Any, str]:
        if self._titles is None:
            schema, path = self.bundle.schema, self.bundle.folder / "catalogue.parquet"
            self._titles = {}
            if schema.title and path.exists():
                table = pq.read_table(path, columns=[schema.item, schema.title], partitioning=None)
                ids, titles = (column.to_pylist() for column in table.columns)
                self._titles = dict(zip(ids, (title or "" for title in titles), strict=True))
        return self._titles
