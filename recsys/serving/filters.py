"""Filters: which of n items may be answered, by their raw ids and by what the catalogue says."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.errors import DataError
from feature_store.ids import as_ids
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.expressions import (
    AllOf,
    Among,
    AnyOf,
    Compared,
    Expression,
    Missing,
    Not,
    Sign,
    Value,
    parse,
    shown,
    written,
)
from recsys.serving.requests import ids_of

_KEPT = 32  # masks, the newest, of a byte an item each
_ORDER: dict[Sign, Callable[..., pa.Array]] = {
    **{"<": pc.less, "<=": pc.less_equal},
    **{">": pc.greater, ">=": pc.greater_equal},
}
_HOW = {"text": "texts are written in quotes", "number": "numbers are written without quotes"}


class Filters:
    """Masks over n items; those of expressions are kept, the newest of them.

    `places` gives, of raw ids, the places among the n, -1 for none.
    """

    def __init__(
        self,
        catalogue: ItemCatalogue,
        kind: pa.DataType,
        items: int,
        places: Callable[[pa.Array], np.ndarray],
    ) -> None:
        self._catalogue = catalogue
        self._kind = kind
        self._items = items
        self._places = places
        self._of_expression = lru_cache(_KEPT)(self._evaluated)

    def mask(
        self,
        allowed: Any = None,
        forbidden: Any = None,
        where: str | None = None,
    ) -> Tensor | None:
        """Which items [n], bool, are among the ids that are `allowed` and not among the `forbidden`
        ones, and fulfil an expression; None where nothing is asked.

        Ids that no item has are passed over. What is not known fulfils no comparison and no
        opposite of one, as in SQL.

        Raises DataError for ids of another type, an expression that cannot be read, or one that
        names what the catalogue lacks.
        """
        if allowed is None and forbidden is None and where is None:
            return None
        mask = torch.ones(self._items, dtype=torch.bool)
        if where is not None:
            mask &= self._of_expression(parse(where))
        if allowed is not None:
            mask &= self._of_ids(allowed, "allowed")
        if forbidden is not None:
            mask &= ~self._of_ids(forbidden, "forbidden")
        return mask

    def _of_ids(self, ids: Any, name: str) -> Tensor:
        mask = torch.zeros(self._items, dtype=torch.bool)
        try:
            places = self._places(as_ids(ids_of(ids), self._kind))
        except (pa.ArrowException, ValueError, DataError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{name} items must be ids of type {self._kind}: {reason}") from None
        mask[torch.from_numpy(places[places >= 0])] = True
        return mask

    def _evaluated(self, expression: Expression) -> Tensor:
        fulfilled = self._truth(expression).fill_null(False)
        return torch.from_numpy(fulfilled.to_numpy(zero_copy_only=False).copy())

    def _truth(self, expression: Expression) -> pa.BooleanArray:
        """Whether each item [n] fulfils it; null where that is not known."""
        match expression:
            case Not(of):
                return pc.invert(self._truth(of))
            case AllOf(parts):
                first, *others = map(self._truth, parts)
                for other in others:
                    first = pc.and_kleene(first, other)
                return first
            case AnyOf(parts):
                first, *others = map(self._truth, parts)
                for other in others:
                    first = pc.or_kleene(first, other)
                return first
            case Missing(column):
                return _known(self._column(column)).is_null()
            case Among(column, values):
                return self._among(column, values)
            case Compared(column, sign, value):
                return self._compared(column, sign, value)

    def _column(self, name: str) -> pa.Array:
        return self._catalogue.column(name)

    def _among(self, name: str, values: tuple[Value, ...]) -> pa.BooleanArray:
        column = self._column(name)
        if not pa.types.is_list(column.type):
            wanted = self._values(name, column.type, values)
            column = _known(column)
            there = pc.is_in(column, value_set=wanted)
            return pc.if_else(column.is_valid(), there, None)
        wanted = self._values(name, column.type.value_type, values)
        there = pc.is_in(pc.list_flatten(column), value_set=wanted, skip_nulls=True)
        holders = pc.list_parent_indices(column).filter(there).to_numpy()
        holds = np.zeros(len(column), dtype=bool)
        holds[holders] = True
        return pa.array(holds, mask=column.is_null().to_numpy(zero_copy_only=False))

    def _compared(self, name: str, sign: Sign, value: Value) -> pa.BooleanArray:
        column = self._column(name)
        if pa.types.is_list(column.type):
            raise DataError(
                f"column {name!r} of the catalogue holds several values an item, which have no "
                f"order: write {written(name)} in (...)"
            )
        self._check(name, column.type, value)
        column = _known(column)
        if pa.types.is_integer(column.type):
            sign, bound = _whole_bound(sign, value)  # type: ignore[arg-type]
            if not _FIRST <= bound <= _LAST:
                always = (bound > _LAST) == (sign in ("<", "<="))
                return pc.if_else(column.is_valid(), pa.scalar(always), None)
            value = bound
        return _ORDER[sign](column, _scalar(value, column.type))

    def _values(self, name: str, kind: pa.DataType, values: tuple[Value, ...]) -> pa.Array:
        """The values that a column of this kind may hold, as it would hold them."""
        for value in values:
            self._check(name, kind, value)
        if pa.types.is_integer(kind):
            whole = {int(value) for value in values if value == math.floor(value)}  # type: ignore[arg-type]
            return pa.array(sorted(v for v in whole if _FIRST <= v <= _LAST), kind)
        return pa.array([_scalar(value, kind).as_py() for value in values], kind)

    def _check(self, name: str, kind: pa.DataType, value: Value) -> None:
        given = "text" if isinstance(value, str) else "number"
        held = "text" if pa.types.is_string(kind) else "number"
        if given != held:
            told = shown(value) if isinstance(value, str) else value
            raise DataError(
                f"column {name!r} of the catalogue holds {held}s, and {told} is a {given}: "
                f"{_HOW[held]}, as in {self._catalogue.example(name)}"
            )


_FIRST, _LAST = -(1 << 63), (1 << 63) - 1


def _known(column: pa.Array) -> pa.Array:
    """Values without NaN, which says that a number is not known, and with one zero."""
    if pa.types.is_floating(column.type):
        return pc.add(pc.if_else(pc.is_nan(column), None, column), pa.scalar(0.0, column.type))
    return column


def _scalar(value: Value, kind: pa.DataType) -> pa.Scalar:
    """A value as a column of this kind holds it: 0.1 of 32 bits is the nearest that there is."""
    if pa.types.is_floating(kind):
        with np.errstate(over="ignore"):
            nearest = float(np.float32(float(value)) if pa.types.is_float32(kind) else value)
        return pa.scalar(nearest + 0.0, kind)
    return pa.scalar(value, kind)


def _whole_bound(sign: Sign, value: float) -> tuple[Sign, int]:
    """The comparison of whole numbers with a whole number that says the same."""
    if value == math.floor(value):
        return sign, int(value)
    return ("<=", math.floor(value)) if sign in ("<", "<=") else (">=", math.ceil(value))
