"""Examples: an opened folder of encoded examples, and readers over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.columns import (
    KNOWN_EVENTS,
    LABEL,
    LAST_COST,
    LAST_PRICE,
    TRAIN_EVENTS,
    raw_of,
)
from feature_store.errors import DataError
from feature_store.examples import ExamplesSummary, UserFeatures, files_of, parts_of
from feature_store.hashing import codes_of
from feature_store.parquet import check_columns, open_parquet, read_parquet
from feature_store.protocols import TEST, VALIDATION
from feature_store.schema import Feature, Schema
from feature_store.storage import Place, place
from feature_store.vocabulary import Keys, Vocabulary, vocabulary_file
from recsys.data.block import Jagged
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.embeddings.layout import FeatureSpec
from recsys.inputs import Input


@dataclass(frozen=True)
class Interactions:
    """Training events in time order: rows (or numbers) of users, rows of items, seconds since 1970;
    each [E]."""

    users: Tensor
    items: Tensor
    times: Tensor


class Examples:
    """What `feature_store.examples.write_examples` wrote, on the disk or in object storage, as
    tensors and readers."""

    def __init__(self, folder: Place | str) -> None:
        self.folder = place(folder)
        self.summary = ExamplesSummary.load(self.folder)
        self.schema = Schema.load(self.folder / "schema.json")
        self._items = read_parquet(items := self.folder / "items.parquet")
        check_columns(items, self._items.schema, [TRAIN_EVENTS, KNOWN_EVENTS])

    @property
    def num_items(self) -> int:
        """N: rows of the item vocabulary, the unknown row included."""
        return self._items.num_rows

    @property
    def tasks(self) -> tuple[str, ...]:
        """What labelled rows have labels of, the first of which every row has."""
        return (LABEL, *self._further_tasks)

    @property
    def task_columns(self) -> tuple[str, ...]:
        """Columns of the log that say how an event ended, beside the one of the first label."""
        columns = (task["column"] for task in self._further_tasks.values())
        return tuple(column for column in columns if column is not None)

    @property
    def _further_tasks(self) -> dict[str, dict[str, Any]]:
        tasks: dict[str, dict[str, Any]] = self.summary.parts.get("labels.tasks", {})
        return tasks

    @cached_property
    def train_events(self) -> Tensor:
        """Training events of every item row [N]."""
        return torch.from_numpy(self._items.column(TRAIN_EVENTS).to_numpy().copy())

    @cached_property
    def known_events(self) -> Tensor:
        """Events of every item row [N] before the test: training, and validation."""
        return torch.from_numpy(self._items.column(KNOWN_EVENTS).to_numpy().copy())

    @cached_property
    def last_prices(self) -> Tensor | None:
        """The newest price of every item row [N] before the test, 0 where none is known; None
        for logs without prices."""
        return self._last(LAST_PRICE)

    @cached_property
    def last_costs(self) -> Tensor | None:
        """What a piece of every item row [N] cost the seller when it was last known before the
        test, 0 where that is unknown; None for logs without costs."""
        return self._last(LAST_COST)

    def _last(self, column: str) -> Tensor | None:
        if column not in self._items.column_names:
            return None
        return torch.from_numpy(self._items.column(column).fill_null(0).to_numpy().copy())

    def candidates(self, which: str = "known", role: str = TEST) -> Tensor:
        """Item rows that may be recommended: those `known` before the role's events, the others,
        which are `new`, or all of the `catalogue`.

        The same for every model and for a refit, so that all rank the same.
        """
        known = (self.known_events if role == TEST else self.train_events) > 0
        masks = {"known": known, "new": ~known, "catalogue": torch.ones_like(known)}
        return masks[which][1:].nonzero().squeeze(1) + 1

    def vocabulary(self, feature: str) -> Vocabulary:
        """The vocabulary of a feature's table, or `Keys`, which know the raw ids of what is asked
        in validation and test."""
        table = self.schema[feature].table_name
        known = Vocabulary.load(self.folder / "vocabulary" / vocabulary_file(table))
        if isinstance(known, Keys):
            return Keys(known.type, table, partial(self._asked_ids, feature))
        return known

    def _asked_ids(self, feature: str) -> tuple[np.ndarray, pa.Array]:
        """Codes of a feature of strings, ascending, and its raw ids, of validation and test."""
        column, parts = raw_of(feature), []
        for path in (p for role in (VALIDATION, TEST) for p in files_of(self.folder, role)):
            if column in open_parquet(path).schema_arrow.names:
                parts.append(read_parquet(path, [column]).column(0))
        raw = pa.concat_arrays([c for part in parts for c in part.chunks] or [pa.array([], "str")])
        ids = pc.unique(raw.drop_null())
        codes, first = np.unique(codes_of(ids), return_index=True)
        return codes, ids.take(pa.array(first))

    @cached_property
    def num_users(self) -> int:
        """Users of the log."""
        known = self.vocabulary(self.schema.user)
        if not isinstance(known, Keys):
            return len(known) - 1
        path = self.folder / "serving.parquet"
        return int(open_parquet(path).metadata.num_rows)

    def spec(self, feature: str) -> FeatureSpec:
        """What a layout needs to know of an embedded feature."""
        declared, vocabulary = self.schema[feature], self.vocabulary(feature)
        rows = 0 if isinstance(vocabulary, Keys) else len(vocabulary)
        return FeatureSpec(feature, declared.table_name, rows, declared.kind == "bag", vocabulary)

    def item_column(self, feature: Feature) -> Tensor:
        """A feature of every item row: ids [N], bags [N, L] padded with 0, dense [N]."""
        return _feature(self._items.column(feature.name).combine_chunks(), feature)

    def item_texts(self, feature: str) -> pa.Array:
        """A text feature of every item row [N], null where there is none.

        Raises DataError where the examples hold no such text.
        """
        return self.item_attributes((feature,)).column(0).combine_chunks()

    def item_attributes(self, features: tuple[str, ...]) -> pa.Table:
        """Features of every item row [N] as the catalogue has them, null where it says nothing.

        Raises DataError where the examples do not hold them.
        """
        path = self.folder / "item_texts.parquet"
        names = open_parquet(path).schema_arrow.names if path.exists() else []
        for feature in features:
            if feature not in names:
                raise DataError(
                    f"{self.folder} holds no item text {feature!r}; it has: "
                    f"{', '.join(names) or 'none, since its model reads none'}"
                )
        return read_parquet(path, list(features))

    def user_column(self, feature: Feature, users: Tensor) -> Tensor:
        """A feature, as `item_column`, of users [n] as batches name them."""
        table = read_parquet(self.folder / "users.parquet")
        keyed = isinstance(self.vocabulary(self.schema.user), Keys)
        codes = table.column(self.schema.user).to_numpy() if keyed else None
        rows = UserFeatures(table, codes).of(pa.chunked_array([users.numpy()]))
        return _feature(rows.column(feature.name).combine_chunks(), feature)

    def training_column(self, feature: Feature) -> Tensor:
        """A dense feature as training meets it: of every training row, or of every known item."""
        if feature.side == "item":
            return self.item_column(feature)[1:]
        table = read_parquet(self.folder / "train.parquet", [feature.name])
        return torch.from_numpy(table.column(feature.name).to_numpy().copy())

    def training_labels(self) -> Tensor:
        """The first label of every training row."""
        return self._of_training(LABEL, np.float32)

    def training_ids(self, name: str) -> Tensor:
        """A column of whole numbers of every training row."""
        return self._of_training(name, np.int64)

    def training_numbers(self, name: str) -> Tensor:
        """A column of numbers of every training row."""
        return self._of_training(name, np.float32)

    def training_lists(self, name: str, longest: int) -> Iterator[Jagged]:
        """The last `longest` values of a list of every training row, file after file."""
        for path in files_of(self.folder, "train"):
            yield Jagged.of(read_parquet(path, [name]).column(0), longest)

    def _of_training(self, name: str, dtype: type) -> Tensor:
        tables = (read_parquet(path, [name]) for path in files_of(self.folder, "train"))
        values = [table.column(0).to_numpy().astype(dtype) for table in tables]
        return torch.from_numpy(np.concatenate(values))

    def interactions(self) -> Interactions:
        """The training events."""
        paths = parts_of(self.folder, "interactions")
        columns = [  # one column at a time: they are the largest that is ever read whole
            np.concatenate([_numbers(read_parquet(path, [name])) for path in paths])
            for name in ("user", "item", "time")
        ]
        if len(paths) > 1:  # late events of a day lie behind those of the days before
            order = np.argsort(columns[2], kind="stable")
            columns = [column[order] for column in columns]
        return Interactions(*map(torch.from_numpy, columns))

    def event_users(self) -> Tensor:
        """Users of the training events [E] as batches name them, where `interactions` numbers
        them."""
        path = parts_of(self.folder, "interactions")[0]
        if "code" not in open_parquet(path).schema_arrow.names:
            return self.interactions().users
        return torch.from_numpy(_numbers(read_parquet(path, ["code"])))

    def reader(
        self,
        role: str,
        inputs: tuple[Input, ...],
        config: ReaderConfig,
        *,
        extra: tuple[str, ...] = (),
        together: str | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Reader:
        """Batches of a role with the columns of `inputs` and `extra`; only training shuffles, rows
        with the same id `together` in one batch."""
        columns = [*(asked.name for asked in inputs), *extra]
        lengths = {asked.name: asked.length for asked in inputs if asked.length}
        return Reader(
            files_of(self.folder, role),
            config,
            columns=list(dict.fromkeys(columns)),
            # requests say what was seen: their histories are not cut
            max_lengths=lengths if role == "train" else {},
            bucket_by=next((asked.name for asked in inputs if asked.paces), None),
            together=together,
            shuffle=role == "train",
            seed=seed,
            rank=rank,
            world=world,
        )


def _numbers(table: pa.Table) -> np.ndarray:
    values: np.ndarray = table.column(0).to_numpy().astype(np.int64)
    return values


def _feature(column: pa.Array, feature: Feature) -> Tensor:
    """A column as a tensor; bags are padded with 0."""
    if feature.kind != "bag":
        return torch.from_numpy(column.to_numpy().copy())
    lengths = pc.list_value_length(column).to_numpy()
    padded = np.zeros((len(lengths), max(1, int(lengths.max(initial=0)))), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = column.flatten().to_numpy()
    return torch.from_numpy(padded)
