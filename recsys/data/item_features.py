"""Which features of a log a model reads, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from feature_store.errors import ConfigError
from feature_store.schema import Feature, Schema, Side
from recsys.data.examples import Examples
from recsys.inputs import Bag, Id, Input, Number

USABLE = ("id", "bag", "dense")
_BAG_LENGTH = 64
_INPUTS: dict[str, Callable[[str], Input]] = {
    "id": Id,
    "bag": partial(Bag, length=_BAG_LENGTH),
    "dense": partial(Number, unknown="nan"),
}


def choose(
    names: tuple[str, ...],
    examples: Examples,
    side: Side,
    *,
    option: str,
    without: Iterable[str | None] = (),
) -> tuple[Feature, ...]:
    """The features of a side that are named, or all of them but those in `without`.

    Raises ConfigError as `usable_features`.
    """
    usable = usable_features(names, examples.schema, side, option=option)
    return tuple(usable[name] for name in names or (n for n in usable if n not in set(without)))


def usable_features(
    names: tuple[str, ...], schema: Schema, side: Side, *, option: str
) -> dict[str, Feature]:
    """The features of a side that models can read, by name; in which list something was shown is
    none.

    Raises ConfigError, naming the config's `option`, where not all `names` are among them.
    """
    usable = {f.name: f for f in schema.of_side(side) if f.kind in USABLE and f.name != schema.list}
    unknown = [name for name in names if name not in usable]
    if unknown:
        raise ConfigError(
            f"{option} names {', '.join(unknown)}; the log has: {', '.join(usable) or 'none'}"
        )
    return usable


def described_by(names: tuple[str, ...], schema: Schema, *, option: str) -> tuple[Feature, ...]:
    """The features of items, other than their own id, that describe them in words: those named, or
    all texts, ids and bags.

    Raises ConfigError, naming the config's `option`, where there are none such.
    """
    features = schema.of_side("item")
    known = {f.name: f for f in features if f.kind != "dense" and f.name != schema.item}
    have = ", ".join(known) or "none"
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"{option} names {', '.join(unknown)}; the texts, ids and bags of items are: {have}"
        )
    if not known:
        raise ConfigError(f"{option}: the items of this log have no text, id or bag to be read")
    return tuple(known[name] for name in names or known)


def input_of(feature: Feature) -> Input:
    """How a request brings the feature."""
    return _INPUTS[feature.kind](feature.name)


class FeatureValues(NamedTuple):
    """Of n rows, by the features' names: ids [n], bags [n, L] padded with 0, and numbers [n]."""

    ids: dict[str, Tensor]
    bags: dict[str, Tensor]
    numbers: dict[str, Tensor]

    @classmethod
    def of(cls, features: Iterable[Feature], values: dict[str, Tensor]) -> Self:
        """What `values` hold of some features."""
        by_kind: dict[str, dict[str, Tensor]] = {kind: {} for kind in USABLE}
        for feature in features:
            by_kind[feature.kind][feature.name] = values[feature.name]
        return cls(*by_kind.values())


class ItemColumns(nn.Module):
    """Features of every item row, looked up in the model: requests bring the item alone."""

    def __init__(self, features: tuple[Feature, ...], examples: Examples) -> None:
        super().__init__()
        self.features = features
        for feature in features:
            column = examples.item_column(feature)
            self.register_buffer(f"item_{feature.name}", column, persistent=False)

    def everything(self) -> Tensor:
        """All item rows [N], the unknown one first."""
        column: Tensor = getattr(self, f"item_{self.features[0].name}")
        return torch.arange(column.shape[0], device=column.device)

    def forward(self, rows: Tensor) -> FeatureValues:
        """The features of item rows [n]."""
        columns = {f.name: getattr(self, f"item_{f.name}")[rows] for f in self.features}
        return FeatureValues.of(self.features, columns)
