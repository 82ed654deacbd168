"""What figures beyond accuracy need to know of items: popularity, categories, vectors, prices."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.decomposition import TruncatedSVD
from torch import Tensor
from torch.nn import functional as F

from feature_store.errors import ConfigError
from recsys.data.examples import Examples, Interactions
from recsys.evaluation.beyond_accuracy import category_units, popularity_weights, self_information
from recsys.evaluation.columns import category_feature, slicing_feature
from recsys.evaluation.frequent_values import frequent

COLD_ITEM = 5  # events below which an item counts as cold
_SPACE = 32  # width of the vectors of VectorDiversity
_MOST_CATEGORIES = 2000


@dataclass(frozen=True)
class ItemFacts:
    """Facts of N item rows; row 0 (unknown) belongs to nothing.

    Attributes:
        information: self-information [N] in bits, over users of the training events.
        rarity: weights [N] of StratifiedRecall.
        categories: unit vectors [N, C] of categories, if the catalogue has any.
        vectors: unit vectors [N, D] of one space for all models: a truncated SVD of the training
            events, so that models can be compared.
        prices: last known prices [N], 0 where unknown, if the log has any.
        members: which slice an item is in [N, G], as 0 and 1.
        slices: names of the slices [G], such as `popularity=head`.
    """

    information: Tensor
    rarity: Tensor
    categories: Tensor | None
    vectors: Tensor
    prices: Tensor | None
    members: Tensor
    slices: tuple[str, ...]

    @classmethod
    def of(
        cls, examples: Examples, *, category: str | None, columns: tuple[str, ...], power: float
    ) -> ItemFacts:
        """The facts that a folder of examples holds.

        Raises ConfigError for columns that are not such as `recsys.evaluation.columns` asks for,
        and for a category of more than 2,000 values.
        """
        events = examples.interactions()
        slices = _popularity_slices(examples.known_events) | {
            f"{name}={label}": members
            for name in columns
            if slicing_feature(examples.schema, name).side == "item"
            for label, members in _column_slices(examples, name).items()
        }
        return cls(
            information=self_information(*_users_per_item(events, examples.num_items)),
            rarity=popularity_weights(examples.known_events, power),
            categories=_categories(examples, category),
            vectors=_vectors(events, examples.num_items),
            prices=examples.last_prices,
            members=torch.from_numpy(np.stack(list(slices.values()), axis=1)).float(),
            slices=tuple(slices),
        )

    def to(self, device: torch.device) -> ItemFacts:
        """The facts on another device."""
        moved: dict[str, Any] = {
            field.name: tensor.to(device)
            for field in fields(self)
            if isinstance(tensor := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def _users_per_item(events: Interactions, items: int) -> tuple[Tensor, int]:
    pairs = torch.unique(events.users * items + events.items)
    return torch.bincount(pairs % items, minlength=items), len(torch.unique(events.users))


def _popularity_slices(events: Tensor) -> dict[str, np.ndarray]:
    """Head, middle and tail take a third of the events each; cold items have next to none."""
    counts = events.numpy()
    order = np.argsort(-counts, kind="stable")
    share = np.empty(len(counts))
    share[order] = (np.cumsum(counts[order]) - counts[order]) / max(1, counts.sum())
    real = np.arange(len(counts)) > 0
    return {
        "popularity=head": real & (share < 1 / 3),
        "popularity=middle": real & (share >= 1 / 3) & (share < 2 / 3),
        "popularity=tail": real & (share >= 2 / 3),
        "items=cold": real & (counts < COLD_ITEM),
        "items=warm": real & (counts >= COLD_ITEM),
    }


def _column_slices(examples: Examples, name: str) -> dict[str, np.ndarray]:
    """Items [N] by the values of a catalogue column, the most frequent ones by name."""
    column = examples.item_column(examples.schema[name])
    rows = column.reshape(len(column), -1).numpy()
    named, labels = frequent(rows, examples.vocabulary(name))
    slices = {label: (rows == row).any(1) for label, row in zip(labels, named, strict=True)}
    other = ((rows != 0) & ~np.isin(rows, named)).any(1)
    return slices | ({"other": other} if other.any() else {})


def _categories(examples: Examples, category: str | None) -> Tensor | None:
    schema = examples.schema
    if category is None:
        for feature in schema.of_side("item"):
            small = feature.kind == "bag" and examples.spec(feature.name).rows <= _MOST_CATEGORIES
            if small and feature.table_name != schema[schema.item].table_name:
                return category_units(examples.item_column(feature))
        return None
    feature = category_feature(schema, category)
    values = examples.spec(category).rows
    if values > _MOST_CATEGORIES:
        raise ConfigError(
            f"evaluation.category: {category!r} has {values:,} values, at most "
            f"{_MOST_CATEGORIES:,} make categories"
        )
    rows = examples.item_column(feature)
    return category_units(rows.reshape(len(rows), -1))


def _vectors(events: Interactions, items: int) -> Tensor:
    """Unit vectors [N, D] of items who share users; zeros for items without events."""
    users, rows = events.users.numpy(), events.items.numpy()
    matrix = sp.csr_matrix((np.ones(len(rows)), (rows, users)), shape=(items, users.max() + 1))
    matrix.data[:] = 1.0  # an item taken twice is taken
    width = min(_SPACE, min(matrix.shape) - 1)
    vectors = TruncatedSVD(width, random_state=0).fit_transform(matrix)
    return F.normalize(torch.from_numpy(vectors).float(), dim=1)
