"""Recommender: raw requests in, raw items out, from a generator or a cascade of a bundle alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.errors import DataError
from feature_store.ids import as_ids, plain
from recsys.inputs import History, Id, Input, Requests
from recsys.lists.diversify import diversify
from recsys.serving.answering import Answering
from recsys.serving.bundle import Bundle
from recsys.serving.cascade import Cascade
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.filters import Filters
from recsys.serving.finder import Finder
from recsys.serving.generator import Generator
from recsys.serving.listed import Listed, merged
from recsys.serving.manifest import CascadeRecord
from recsys.serving.origins import names_of
from recsys.serving.requests import USER, by_names_of_log, frame_of, ids_of, table_of
from recsys.serving.rows import Rows, read_rows, refuse_long_lists
from recsys.serving.users import KnownUsers

REQUEST = "request"
_POOL = 10  # candidates for each place of a diverse list


def _finder(bundle: Bundle, part: str | None) -> Finder:
    """What answers: the part of that name, by default a cascade if there is one."""
    parts = bundle.manifest.parts
    cascades = [name for name, record in parts.items() if isinstance(record, CascadeRecord)]
    name = cascades[0] if part is None and cascades else part
    return Cascade.open(bundle, name) if name in cascades else Generator.open(bundle, name)


class Answers(NamedTuple):
    """The k best for B requests: places [B, k] among the generator's items, -1 for none, scores
    [B, k], whether the `fallback` [B] answered in the model's stead, and the `origins` [B, k] of
    the items, see `recsys.serving.origins`."""

    places: Tensor
    scores: Tensor
    fallback: Tensor
    origins: Tensor


class Wanted(NamedTuple):
    """The options of `Recommender.recommend`; `allowed` is a mask [n] of items, None for all."""

    k: int
    exclude_seen: bool
    diversity: float
    category: str | None
    strict: bool
    allowed: Tensor | None

    @property
    def pool(self) -> int:
        """Candidates of a list."""
        return _POOL * self.k if self.diversity else self.k


class Recommender(Answering):
    """Answers from a generator of a bundle, or from a cascade of several: `part`, by default the
    cascade, or else the only generator.

    A request is a row with the user's `history` (raw item ids, oldest first) and whichever user
    features the model reads; features that are absent are unknown. A model that reads times
    takes them from `history_time` (a list beside the history) and `time` (of the request, by
    default that of its last event), as timestamps or seconds since 1970. Known users need no
    more than their id: what the bundle knows of them, or a store of their newest histories.

    Where the model needs a history, a request without a known item in its own gets the bundle's
    fallback, a list that is the same for everybody, and is marked so.
    """

    def __init__(
        self, bundle: Bundle, part: str | None = None, users: KnownUsers | None = None
    ) -> None:
        super().__init__(bundle, part, users)
        self.finder = _finder(bundle, part)
        self._seen = History(bundle.schema.item)
        self._vocabularies = bundle.vocabularies_of(self.finder.name)
        vocabulary, item_ids = self._vocabularies[bundle.schema.item], self.finder.item_ids
        self.catalogue = ItemCatalogue(bundle.catalogue, bundle.schema, item_ids)
        self._place = np.full(len(vocabulary), -1)
        self._place[vocabulary.encode(item_ids)] = np.arange(len(item_ids))
        self._filters = Filters(
            self.catalogue,
            vocabulary.values.type,
            len(item_ids),
            lambda ids: self._place[vocabulary.encode(ids)],
        )

    @property
    def generator(self) -> Generator:
        """The generator that answers. Raises DataError where a cascade does."""
        if not isinstance(self.finder, Generator):
            raise DataError(f"{self.bundle.folder} answers by a cascade, which is no generator")
        return self.finder

    def read_ahead(self) -> None:
        """Read now what else the first question that needs it would wait for."""
        if self.catalogue.has_titles:
            self.catalogue.titles(torch.zeros(1, dtype=torch.long))
        if self.finder.fallback is not None:
            everything = torch.ones(len(self.finder.item_ids), dtype=torch.bool)
            self.finder.fallback.top(np.zeros(1, dtype=np.int64), 1, everything)

    def verify(self) -> None:
        """Replay the golden requests. Raises DataError where an answer differs."""
        golden = self.finder.golden()
        unknown = pa.array(self._without_history(self._asked(golden)))
        known = golden.filter(pc.invert(unknown))
        asked = self._asked(known)
        self.finder.check_golden(known, asked, self._places(asked))
        self.finder.check_fallback(golden.filter(unknown))

    def check_index(self) -> None:
        """Measure again what an index promises. Raises DataError where it is not kept."""
        self.finder.check_index()

    def recommend(
        self,
        users: Any = None,
        *,
        requests: pd.DataFrame | pa.Table | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        category: str | None = None,
        strict: bool = False,
        allowed: Any = None,
        forbidden: Any = None,
        where: str | None = None,
    ) -> pd.DataFrame:
        """The k best items, for known users by id, one or many, or for requests.

        Of items whose ids are `allowed`, are not `forbidden`, and `where` an expression over the
        catalogue's columns holds, such as `genre in ("Comedy", "Drama") and not year < 1990`: k of
        them wherever there are so many.

        With `diversity` above 0 the k are chosen among ten times as many so that they differ in
        `category`, a column of the catalogue: every pair of items that do is worth as much as
        that much score, see `recsys.lists.diversify`. Their scores need not descend then.

        Returns what `recommend_table` does, as a frame.

        Raises:
            DataError: columns of the wrong type, or a column that the catalogue lacks, or an
                expression that cannot be read; with `strict` unknown users, and an empty history
                where the model needs one; the message names them.
        """
        if (users is None) == (requests is None):
            raise DataError("give either users or requests")
        known = users is not None
        answers = self.recommend_table(
            self.requests_of(users, strict=strict) if known else table_of(requests),
            k=k,
            exclude_seen=exclude_seen,
            diversity=diversity,
            category=category,
            strict=strict,
            allowed=allowed,
            forbidden=forbidden,
            where=where,
        )
        return frame_of(answers)

    def recommend_table(self, requests: pa.Table, **options: Any) -> pa.Table:
        """The k best items of every request, with the options of `recommend`.

        Returns a table with the columns user, rank (from 1), item, score, title where the
        catalogue has one, its `origin`, and whether the `fallback` answered: it does so for unknown
        users and for histories without a known item, unless `strict` refuses them. Its scores are
        counts of events. The origin is the part that found the item, of a cascade the generators
        that did, joined by +, or `fallback`. Where requests bear no ids of users there is
        `request`, from 0, instead of user. A user without enough candidates gets a shorter list.
        """
        answers = self.answer(requests, **options)
        label, names = self._names(by_names_of_log(requests, self.bundle.schema))
        return self.table_of(answers, {label: names})

    def table_of(self, answers: Answers, about: Mapping[str, pa.Array]) -> pa.Table:
        """A row for each item of an answer, beside what there is to say `about` its request."""
        row, rank = (answers.places >= 0).nonzero(as_tuple=True)
        places, asked = answers.places[row, rank], pa.array(row.numpy())
        columns = {
            **{name: values.take(asked) for name, values in about.items()},
            "rank": pa.array((rank + 1).numpy()),
            "item": self.finder.item_ids.take(pa.array(places.numpy())),
            "score": pa.array(answers.scores[row, rank].numpy()),
        }
        if self.catalogue.has_titles:
            columns["title"] = self.catalogue.titles(places)
        columns["origin"] = self.names_of(answers.origins[row, rank])
        columns["fallback"] = pa.array(answers.fallback[row].numpy())
        return pa.table(columns)

    def names_of(self, origins: Tensor) -> pa.Array:
        """The names [m] of `origins` [m], as `recommend_table` has them."""
        fallback = self.finder.fallback
        segments = None if fallback is None else fallback.segments.values
        return names_of(origins, self.finder.sources, segments)

    def answer(self, requests: pa.Table, **options: Any) -> Answers:
        """What `recommend` answers, as arrays."""
        return self.answer_wanted(requests, self.wanted(**options))

    def wanted(
        self,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        category: str | None = None,
        strict: bool = False,
        allowed: Any = None,
        forbidden: Any = None,
        where: str | None = None,
    ) -> Wanted:
        """The options of `recommend`, looked up once for any number of batches.

        Raises DataError for those that cannot be meant.
        """
        if k < 1:
            raise DataError(f"k must be at least 1, not {k}")
        if not 0 <= diversity < float("inf"):
            raise DataError(f"diversity must be at least 0 and finite, not {diversity}")
        if diversity and category is None:
            raise DataError("diversity needs a category: name a column of the catalogue")
        if category is not None:
            self.catalogue.check_category(category)
        mask = self.allowed_of(allowed, forbidden, where)
        return Wanted(k, exclude_seen, diversity, category, strict, mask)

    def answer_wanted(self, requests: pa.Table, wanted: Wanted) -> Answers:
        """What `recommend` answers, as arrays, with options that were looked up before."""
        asked = self._asked(requests)
        unknown = self._without_history(asked)
        if wanted.strict or self.finder.fallback is None:
            self._refuse(asked, unknown)
        listed = self._search(asked, unknown, wanted)
        if wanted.diversity and wanted.category is not None:
            items, columns = listed.places.clamp(min=0).unique(return_inverse=True)
            categories = self.catalogue.categories(wanted.category, items)
            columns = columns.masked_fill(listed.places < 0, -1)
            scores, columns = diversify(
                listed.scores, columns, categories, wanted.diversity, wanted.k
            )
            places = items[columns.clamp(min=0)].masked_fill(columns < 0, -1)
            listed = listed.with_places(scores, places)
        return Answers(listed.places, listed.scores, torch.from_numpy(unknown), listed.origins)

    def read_rows(self, rows: Sequence[Any]) -> Rows:
        """Requests that are rows of any values; see `recsys.serving.rows`."""
        inputs: dict[str, Input] = {
            asked.name: asked for asked in (self._seen, *self.finder.record.inputs)
        }
        schema = self.bundle.schema
        user = pa.field(schema.user, schema[schema.user].arrow_type)
        vocabularies, fallback = self._vocabularies, self.finder.fallback
        if fallback is not None and fallback.by is not None:
            inputs.setdefault(fallback.by, Id(fallback.by))
            vocabularies = {fallback.by: fallback.segments, **vocabularies}
        return read_rows(rows, list(inputs.values()), vocabularies, self.known, user)

    def requests_of(self, users: Any, *, strict: bool = True) -> pa.Table:
        """The newest requests of known users, one or many; of unknown ones only the ids.

        Raises DataError naming the unknown ones where it is `strict`.
        """
        wanted = ids_of(users)
        table, key = self.known.of(wanted), self.bundle.schema.user
        known = table.column(key).is_valid().to_numpy()
        if known.all():
            return table
        if strict:
            unknown = [str(wanted[place].as_py()) for place in np.flatnonzero(~known)[:5].tolist()]
            raise DataError(
                f"unknown users: {', '.join(unknown)}; pass requests with their histories instead"
            )
        ids = as_ids(wanted, table.schema.field(key).type)
        if ids.null_count > wanted.null_count:  # beyond what the log's type can hold
            ids = wanted
        return table.set_column(table.column_names.index(key), key, ids)

    def asked_of(self, requests: pa.Table) -> tuple[Requests, Tensor]:
        """Requests with their history as models read them, and the places [B, L] of seen items,
        padded with -1."""
        asked = self._asked(requests)
        return asked, self._places(asked)

    def allowed_of(
        self, allowed: Any = None, forbidden: Any = None, where: str | None = None
    ) -> Tensor | None:
        """Which places [n] may be answered, as in `recommend`; None for all."""
        return self._filters.mask(allowed, forbidden, where)

    def users(self) -> list[Any]:
        """Ids of all known users."""
        return self.known.users().to_pylist()

    def encode(self, requests: pa.Table) -> tuple[dict[str, Tensor], Tensor]:
        """Tensors of the program's inputs, and the places [B, L] of seen items, padded with -1."""
        asked, reads = self._asked(requests), self.finder.record.inputs
        return {column.name: column.from_requests(asked) for column in reads}, self._places(asked)

    def _places(self, asked: Requests) -> Tensor:
        """The places [B, L] of seen items, padded with -1."""
        return torch.from_numpy(self._place[self._seen.from_requests(asked).numpy()])

    def _asked(self, requests: pa.Table) -> Requests:
        """Requests with a history, under the log's names.

        Raises DataError for others, and where there are none.
        """
        if not requests.num_rows:
            raise DataError("no requests")
        requests = by_names_of_log(requests, self.bundle.schema)
        refuse_long_lists(requests)
        if self._seen.name not in requests.column_names:
            have = ", ".join(requests.column_names)
            raise DataError(
                f"requests need a column {self._seen.name!r} of item ids; they have: {have}"
            )
        return Requests(requests, self._vocabularies)

    def _without_history(self, asked: Requests) -> np.ndarray:
        """Which requests [B] the model has nothing to go by for: it needs a known item."""
        if not self.finder.record.needs_history:
            return np.zeros(len(asked), dtype=bool)
        return asked.encoded(self._seen.name, self._seen.item).counts == 0

    def _refuse(self, asked: Requests, unknown: np.ndarray) -> None:
        """Raises DataError naming the first request of those that are `unknown` [B]."""
        if not unknown.any():
            return
        row, about = int(unknown.argmax()), self.finder.record.about
        way_out = "without strict it gets the bundle's fallback"
        if self.finder.fallback is None:
            way_out = f"its bundle has no fallback yet: `recsys export` the run {about.run} anew"
        label, names = self._names(asked.table)
        who = f" (user {names[row]})" if label == USER else ""
        which = f"request {row}" if len(asked) > 1 else "the request"
        raise DataError(
            f"{which}{who} has no known item in its history, and {about.model} needs one: {way_out}"
        )

    def _search(self, asked: Requests, unknown: np.ndarray, wanted: Wanted) -> Listed:
        """Lists of the model, and of the fallback where a request is `unknown` [B]: such a one has
        seen nothing that would have to be left out."""
        k = wanted.pool
        if not unknown.any():
            seen = self._places(asked) if wanted.exclude_seen else None
            return self.finder.find(asked, k, seen, wanted.allowed)
        assert self.finder.fallback is not None
        segments = self.finder.fallback.segments_of(asked.table)[unknown]
        listed = self.finder.fallback.top(segments, k, wanted.allowed)
        if unknown.all():
            return listed
        known = self._asked(asked.table.filter(pa.array(~unknown)))
        others = self._search(known, unknown[~unknown], wanted)
        return merged(torch.from_numpy(unknown), listed, others)

    def _names(self, requests: pa.Table) -> tuple[str, pa.Array]:
        """What answers are told apart by: the users, or else the requests' places."""
        key = self.bundle.schema.user
        if key in requests.column_names:
            names = plain(requests.column(key))
            if pa.types.is_nested(names.type):
                raise DataError(f"column {key!r} of the requests holds {names.type}, and no ids")
            return USER, names
        return REQUEST, pa.array(np.arange(requests.num_rows))
