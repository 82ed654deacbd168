"""Rows of one run's vocabularies in those of another, by raw ids.

B requests, N rows of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from feature_store.errors import ConfigError
from feature_store.schema import Schema
from feature_store.vocabulary import Keys, Vocabulary
from recsys.data.batch import Batch
from recsys.inputs import Bag, History, Id, Input, Number, Times


class Known(Protocol):
    """What knows ids by features: examples, or what is to become some."""

    @property
    def schema(self) -> Schema: ...

    def vocabulary(self, feature: str) -> Vocabulary: ...


class Translation(nn.Module):
    """Between the rows of a cascade and those of one of its parts.

    `tables` say for every row [N] of a feature's vocabulary which row the part has for the same raw
    id, 0 where it has none; a feature without a table has equal rows on both sides. `back` is that
    of the items the other way.
    """

    back: Tensor | None

    def __init__(self, item: str, tables: Mapping[str, Tensor], back: Tensor | None = None) -> None:
        super().__init__()
        self.item = item
        # numbered: a feature may be called what no buffer can
        self._names = {feature: f"table_{number}" for number, feature in enumerate(tables)}
        for feature, name in self._names.items():
            self.register_buffer(name, tables[feature], persistent=False)
        self.register_buffer("back", back, persistent=False)

    @classmethod
    def between(cls, own: Known, part: Known, features: Iterable[str]) -> Self:
        """Of some features' vocabularies and the items'."""
        item, tables, back = own.schema.item, {}, None
        for feature in dict.fromkeys([item, *features]):
            here, there = own.vocabulary(feature), part.vocabulary(feature)
            if here.fingerprint == there.fingerprint:
                continue
            if isinstance(here, Keys) or isinstance(there, Keys):
                raise ConfigError(
                    f"the ids of {feature} have a vocabulary in one of two models and none in the "
                    "other, so that one cannot ask the other: give both the same "
                    f"embeddings.tables.{own.schema[feature].table_name}.vocabulary"
                )
            tables[feature] = _rows(there.encode(here.decode(np.arange(len(here)))))
            if feature == item:
                back = _rows(here.encode(there.decode(np.arange(len(there)))))
        return cls(item, tables, back)

    def there(self, feature: str, rows: Tensor) -> Tensor:
        """The part's rows of the cascade's `rows` [...]."""
        name = self._names.get(feature)
        return rows if name is None else self.get_buffer(name)[rows]

    def here(self, items: Tensor) -> Tensor:
        """The cascade's item rows of the part's `items` [...]."""
        return items if self.back is None else self.back[items]

    def batch(self, batch: Batch, inputs: Iterable[Input]) -> Batch:
        """A batch of the cascade as the part reads it: with its rows, in lists without what it does
        not know, as of raw requests. What the batch does not hold is unknown."""
        inputs = tuple(inputs)
        ids: dict[str, Tensor] = {}
        numbers: dict[str, Tensor] = {}
        lists: dict[str, tuple[Tensor, Tensor]] = {}
        for asked in inputs:
            if isinstance(asked, Number):
                numbers[asked.name] = _number(batch, asked)
            elif isinstance(asked, History | Bag):
                lists[asked.name] = self._known(batch, asked.name, asked.name, asked)
            elif isinstance(asked, Times):
                lists[asked.name] = self._known(batch, asked.name, asked.of.name, asked)
            else:  # an id, or a moment
                known = asked.name in batch.id_names
                rows = batch.id(asked.name) if known else batch.ids.new_zeros(len(batch))
                ids[asked.name] = self.there(asked.name, rows) if isinstance(asked, Id) else rows
        return replace(
            batch,
            ids=torch.stack([*ids.values()], 1) if ids else batch.ids[:, :0],
            id_names=tuple(ids),
            dense=torch.stack([*numbers.values()], 1) if numbers else batch.dense[:, :0],
            dense_names=tuple(numbers),
            lists=_joined(lists),
        )

    def _known(self, batch: Batch, name: str, rows_of: str, asked: Input) -> tuple[Tensor, Tensor]:
        """Values and lengths of a list, without the entries of the list `rows_of` beside it that
        the part does not know."""
        assert asked.feature is not None
        if not batch.has(name) or not batch.has(rows_of):
            return batch.ids.new_zeros(0), batch.ids.new_zeros(len(batch))
        jagged, beside = batch.jagged(name), batch.jagged(rows_of)
        rows, lengths = self.there(asked.feature, beside.values()), beside.lengths()
        values = rows if name == rows_of else jagged.values()
        known = rows != 0
        if known.all():
            return values, lengths
        users = torch.arange(len(batch), device=lengths.device).repeat_interleave(lengths)
        return values[known], torch.bincount(users[known], minlength=len(batch))


def _number(batch: Batch, asked: Number) -> Tensor:
    if asked.name in batch.dense_names:
        return batch.column(asked.name)
    unknown = torch.nan if asked.unknown == "nan" else 0.0
    return batch.dense.new_full((len(batch),), unknown)


def _joined(lists: Mapping[str, tuple[Tensor, Tensor]]) -> KeyedJaggedTensor | None:
    if not lists:
        return None
    values, lengths = zip(*lists.values(), strict=True)
    return KeyedJaggedTensor(
        list(lists), torch.cat(values), lengths=torch.cat([of.to(torch.int64) for of in lengths])
    )


def _rows(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.int64).copy())
