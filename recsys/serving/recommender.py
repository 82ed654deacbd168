"""Recommender: raw requests in, raw items out, from a generator of a bundle alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.inputs import History, Requests
from recsys.lists.diversify import diversify
from recsys.serving.bundle import Bundle
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.generator import Generator
from recsys.serving.requests import table_of

_POOL = 10  # candidates for each place of a diverse list


class Answers(NamedTuple):
    """The k best for B requests: places [B, k] among the generator's items, -1 for none, and
    scores [B, k]."""

    places: Tensor
    scores: Tensor


class Recommender:
    """Answers from a generator of a bundle, `part`; by default the only one.

    A request is a row with the user's `history` (raw item ids, oldest first) and whichever user
    features the model reads; features that are absent are unknown. A model that reads times
    takes them from `history_time` (a list beside the history) and `time` (of the request, by
    default that of its last event), as timestamps or seconds since 1970. Known users need no
    more than their id.
    """

    def __init__(self, bundle: Bundle, part: str | None = None) -> None:
        self.bundle = bundle
        self.generator = Generator.open(bundle, part)
        self._seen = History(bundle.schema.item)
        vocabulary, item_ids = bundle.vocabularies[bundle.schema.item], self.generator.item_ids
        self.catalogue = ItemCatalogue(bundle.catalogue, bundle.schema, item_ids)
        self._place = np.full(len(vocabulary), -1)
        self._place[vocabulary.encode(item_ids)] = np.arange(len(item_ids))

    @classmethod
    def open(
        cls, folder: Path | str, *, part: str | None = None, verify: bool = True
    ) -> Recommender:
        """Open a bundle; replays its golden requests unless `verify` is off.

        Raises DataError when files were altered, an answer differs, or there is no such part.
        """
        opened = cls(Bundle.open(folder), part)
        if verify:
            opened.verify()
        return opened

    def verify(self) -> None:
        """Replay the golden requests. Raises DataError where an answer differs."""
        golden = self.generator.golden()
        self.generator.check_golden(golden, *self.encode(golden))

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
        if (users is None) == (requests is None):
            raise DataError("give either users or requests")
        table = self.requests_of(list(users)) if users is not None else table_of(requests)
        answers = self.answer(
            table, k=k, exclude_seen=exclude_seen, diversity=diversity, category=category
        )
        return self._frame(self._names(table), answers)

    def answer(
        self,
        requests: pa.Table,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        category: str | None = None,
    ) -> Answers:
        """What `recommend` answers, as arrays."""
        if k < 1:
            raise DataError(f"k must be at least 1, not {k}")
        if not 0 <= diversity < float("inf"):
            raise DataError(f"diversity must be at least 0 and finite, not {diversity}")
        if diversity and category is None:
            raise DataError("diversity needs a category: name a column of the catalogue")
        if category is not None:
            self.catalogue.check_category(category)
        inputs, seen = self.encode(requests)
        scores, places = self.generator.search(
            self.generator.queries(inputs),
            _POOL * k if diversity else k,
            seen if exclude_seen else None,
        )
        if diversity and category is not None:
            listed, columns = places.clamp(min=0).unique(return_inverse=True)
            categories = self.catalogue.categories(category, listed)
            columns = columns.masked_fill(places < 0, -1)
            scores, columns = diversify(scores, columns, categories, diversity, k)
            places = listed[columns.clamp(min=0)].masked_fill(columns < 0, -1)
        return Answers(places, scores)

    def requests_of(self, users: list[Any]) -> pa.Table:
        """The newest requests of known users. Raises DataError naming the unknown ones."""
        try:
            wanted = pa.array(users)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"users must be of one type: {error}") from None
        table = self.bundle.users.of(wanted)
        known = table.column(self.bundle.schema.user).is_valid().to_numpy()
        if not known.all():
            unknown = [str(users[place]) for place in np.flatnonzero(~known)[:5]]
            raise DataError(
                f"unknown users: {', '.join(unknown)}; pass requests with their histories instead"
            )
        return table

    def users(self) -> list[Any]:
        """Ids of all known users."""
        return self.bundle.users.users().to_pylist()

    def encode(self, requests: pa.Table) -> tuple[dict[str, Tensor], Tensor]:
        """Tensors of the program's inputs, and the places [B, L] of seen items, padded with -1."""
        asked = Requests(requests, self.bundle.vocabularies)
        rows = self._history(asked)
        inputs = {one.name: one.from_requests(asked) for one in self.generator.record.inputs}
        return inputs, torch.from_numpy(self._place[rows])

    def _history(self, requests: Requests) -> np.ndarray:
        """Rows [B, L] of everything that was seen, padded with 0 behind."""
        if not len(requests):
            raise DataError("no requests")
        if self._seen.name not in requests:
            have = ", ".join(requests.table.column_names)
            raise DataError(
                f"requests need a column {self._seen.name!r} of item ids; they have: {have}"
            )
        rows: np.ndarray = self._seen.from_requests(requests).numpy()
        if self.generator.record.needs_history:
            empty = np.flatnonzero(~rows.any(1))
            if len(empty):
                name = self._names(requests.table)[int(empty[0])]
                raise DataError(
                    f"request {int(empty[0])} (user {name}) has no known item in its history, and "
                    f"{self.generator.record.about.model} needs one: answer it by popularity"
                )
        return rows

    def _names(self, requests: pa.Table) -> list[Any]:
        key = self.bundle.schema.user
        if key in requests.column_names:
            return requests.column(key).to_pylist()
        return list(range(requests.num_rows))

    def _frame(self, names: list[Any], answers: Answers) -> pd.DataFrame:
        row, rank = (answers.places >= 0).nonzero(as_tuple=True)
        places = answers.places[row, rank]
        columns = {
            "user": [names[r] for r in row.tolist()],
            "rank": (rank + 1).numpy(),
            "item": self.generator.item_ids.take(pa.array(places.numpy())).to_pylist(),
            "score": answers.scores[row, rank].numpy(),
        }
        if self.catalogue.has_titles:
            columns["title"] = self.catalogue.titles(places)
        return pd.DataFrame(columns)
