"""The one description of a log. Everything downstream reads it; nothing guesses from names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from feature_store.columns import LABEL, POSITION, TIME, fault_of
from feature_store.errors import DataError
from feature_store.storage import Place

Kind = Literal["id", "bag", "dense", "text"]
Side = Literal["user", "item", "context"]
Dtype = Literal["int64", "string", "float32", "float64"]  # money takes 64 bits
Clock = Literal["time", "order", "none"]

TIME_TYPE = pa.timestamp("us")  # UTC
_ARROW = {
    **{"int64": pa.int64(), "string": pa.string()},
    **{"float32": pa.float32(), "float64": pa.float64()},
}

_OF_EVENTS = (
    *("label", "quantity", "event_type", "propensity"),
    *("list", "place", "published_role"),
)
_OF_A_PIECE = ("price", "cost")
_CAME_LATER = ("cost", "list", "place")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Frozen):
    """One column.

    `side` says where it lies: `user` and `item` columns in the catalogue, `context` columns in
    the events. `table` names the embedding table of an id-like feature: features with equal
    table names share rows. A `bag` holds a list of `dtype`.
    """

    name: str
    kind: Kind
    side: Side
    dtype: Dtype = "string"
    table: str | None = None

    @property
    def table_name(self) -> str:
        """The embedding table, named after the feature unless it shares another's."""
        return self.table or self.name

    @property
    def embedded(self) -> bool:
        """True for features that are looked up in an embedding table."""
        return self.kind in ("id", "bag")

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's Arrow type."""
        scalar = _ARROW[self.dtype]
        return pa.list_(scalar) if self.kind == "bag" else scalar

    @model_validator(mode="after")
    def _check(self) -> Feature:
        if self.kind == "dense" and self.dtype == "string":
            raise ValueError(f"feature {self.name!r}: dense features are int64, float32 or float64")
        if self.kind == "text" and self.dtype != "string":
            raise ValueError(f"feature {self.name!r}: text features are strings")
        if self.embedded and self.dtype in ("float32", "float64"):
            raise ValueError(f"feature {self.name!r}: ids are int64 or string")
        for name in (self.name, self.table_name):
            if fault := fault_of(name):
                raise ValueError(f"{name!r} {fault}: rename the feature")
        return self


class Schema(_Frozen):
    """Roles and features of a log, saved beside it as `schema.json`.

    `user`, `item` and `time` name the columns of every event; `label`, `price`, `cost`,
    `quantity`, `event_type`, `propensity` name context features that carry those meanings; price
    and cost of one piece may be features of items instead. `list` and `place` are of what was
    shown: events with the same `list` were shown together, and `place` counts from 1, the first.
    `title` names the text feature of items that people read. `unique` lists event columns whose
    combination may occur only once. `published_role` names a context column of kind `text` that
    says, with the words train, validation and test, how the publisher split the data.

    `clock` says what the time column is worth: moments; only the order of a user's events; or
    nothing at all, since the publisher gives neither.
    """

    user: str
    item: str
    time: str = "time"
    label: str | None = None
    price: str | None = None
    cost: str | None = None
    quantity: str | None = None
    event_type: str | None = None
    propensity: str | None = None
    list: str | None = None
    place: str | None = None
    title: str | None = None
    published_role: str | None = None
    clock: Clock = "time"
    unique: tuple[str, ...] = ()
    features: tuple[Feature, ...]

    @model_validator(mode="after")
    def _check(self) -> Schema:
        names = [f.name for f in self.features]
        folded = [name.casefold() for name in names]
        if len(set(folded)) < len(names):
            repeated = sorted({n for n in names if folded.count(n.casefold()) > 1})
            raise ValueError(f"features named twice, in whatever case: {', '.join(repeated)}")
        for role, side in (("user", "user"), ("item", "item")):
            feature = self.find(getattr(self, role))
            if feature is None or feature.kind != "id" or feature.side != side:
                raise ValueError(
                    f"role {role!r} must name a feature of kind 'id' and side {side!r}, "
                    f"not {getattr(self, role)!r}"
                )
        if self.time.casefold() in (*folded, POSITION):
            raise ValueError(f"the time column {self.time!r} cannot be a feature as well")
        if self.time != TIME and (fault := fault_of(self.time)):
            raise ValueError(f"the time column {self.time!r} {fault}")
        context, of_items = ({f.name for f in self.of_side(s)} for s in ("context", "item"))
        for role in (*_OF_EVENTS, *_OF_A_PIECE):
            name = getattr(self, role)
            known = context | (of_items if role in _OF_A_PIECE else set())
            if name is not None and name not in known:
                raise ValueError(f"role {role!r} names {name!r}: not among {sorted(known)}")
        if self.cost is not None and self.price is None:
            raise ValueError("role 'cost' is what a piece costs the seller: it needs a 'price'")
        for role, kind in (("list", "id"), ("place", "dense")):
            name = getattr(self, role)
            if name is not None and self[name].kind != kind:
                raise ValueError(f"role {role!r} needs a feature of kind {kind!r}: {name!r} is not")
        for feature in self.features:
            of_events = feature.side != "item" or feature.name == self.item
            if feature.name.casefold() == LABEL and of_events and feature.name != self.label:
                raise ValueError("a feature named 'label' must have the label role: rename it")
        unknown = set(self.unique) - set(self.events_schema().names)
        if unknown:
            raise ValueError(f"unique names no event column: {', '.join(sorted(unknown))}")
        return self

    def find(self, name: str) -> Feature | None:
        """The feature of that name, or None."""
        return next((f for f in self.features if f.name == name), None)

    def __getitem__(self, name: str) -> Feature:
        feature = self.find(name)
        if feature is None:
            known = ", ".join(f.name for f in self.features)
            raise DataError(f"no feature {name!r} in the schema; it has: {known}")
        return feature

    def of_side(self, side: Side) -> tuple[Feature, ...]:
        """Features of one side, in the schema's order."""
        return tuple(f for f in self.features if f.side == side)

    def events_schema(self) -> pa.Schema:
        """Arrow schema of an event: user, item, time (never null), then the context features."""
        keys = [pa.field(n, self[n].arrow_type, nullable=False) for n in (self.user, self.item)]
        context = [pa.field(f.name, f.arrow_type) for f in self.of_side("context")]
        return pa.schema([*keys, pa.field(self.time, TIME_TYPE, nullable=False), *context])

    def side_schema(self, side: Literal["user", "item"]) -> pa.Schema:
        """Arrow schema of the catalogue's users or items: the id is never null."""
        key = getattr(self, side)
        return pa.schema(
            pa.field(f.name, f.arrow_type, nullable=f.name != key) for f in self.of_side(side)
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any part of the schema."""
        roles = self.model_dump()
        for name in _CAME_LATER:  # logs without them keep the digits that they had before
            if roles[name] is None:
                del roles[name]
        text = json.dumps(roles, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the schema as JSON."""
        path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n")

    @classmethod
    def load(cls, path: Place) -> Schema:
        """Read what `save` wrote. Raises DataError when the file is absent or not a schema."""
        try:
            return cls.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{path} not found: is this a log made by `recsys ingest`?") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{path} is not a schema: {key}: {first['msg']}") from None
        except ValueError as error:
            raise DataError(f"{path} is not a schema: {error}") from None
