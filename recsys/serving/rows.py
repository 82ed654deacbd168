"""Requests as rows of any values, such as JSON holds: one that cannot be read spoils no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import HISTORY
from feature_store.errors import DataError, RecsysError
from feature_store.ids import as_ids
from recsys.inputs import Input, Times, Vocabularies
from recsys.serving.requests import USER, array_of
from recsys.serving.users import KnownUsers

Read = Callable[[pa.Array], pa.Array]
T = TypeVar("T")

LONGEST = 100_000  # entries of a list that are read
_SHOWN = 200  # signs of a reason
_BAD = (RecsysError, pa.ArrowException, ValueError, TypeError, OverflowError)


class Rows(NamedTuple):
    """Requests as a table, and why each of them [B] cannot be read, None where it can; of one that
    cannot, the table holds no more than the user."""

    table: pa.Table
    problems: list[str | None]


def read_rows(
    rows: Sequence[Any],
    inputs: Iterable[Input],
    vocabularies: Vocabularies,
    known: KnownUsers,
    user: pa.Field,
) -> Rows:
    """Rows with the id of a `user`, under the log's name or as `user`, and what `inputs` read; what
    else they hold is passed over. One without a history is asked for with what is `known`."""
    problems = [
        None if isinstance(row, Mapping) else f"it is no object, but of type {type(row).__name__}"
        for row in rows
    ]
    objects: list[Mapping[str, Any]] = [row if isinstance(row, Mapping) else {} for row in rows]
    readers: dict[str, Read] = {
        asked.name: partial(asked.typed, vocabularies=vocabularies)
        for asked in inputs
        if asked.name != user.name
    }
    columns = {
        name: _column(name, [row.get(name) for row in objects], read, problems)
        for name, read in readers.items()
    }
    for asked in inputs:
        if isinstance(asked, Times) and asked.of.name in columns:
            _compare_lengths(asked, columns, problems)
    if any(name in row for row in objects for name in (user.name, USER)):
        ids = [row.get(user.name, row.get(USER)) for row in objects]
        read_ids = partial(as_ids, kind=user.type)
        columns[user.name] = _column(user.name, ids, read_ids, problems)
        stored = known.of(columns[user.name])
        for name in readers.keys() & set(stored.column_names):
            lacking = [HISTORY not in row and name not in row for row in objects]
            values = readers[name](stored.column(name).combine_chunks())
            columns[name] = _chosen(np.array(lacking), values, columns[name])
    good = pa.array(np.arange(len(rows)), mask=np.array([bool(problem) for problem in problems]))
    table = {name: values.take(good) for name, values in columns.items() if name != user.name}
    return Rows(pa.table(columns | table), problems)


def each_alone(
    ask: Callable[[Sequence[int]], T], places: Sequence[int]
) -> list[tuple[Sequence[int], T | str]]:
    """What `ask` says of places, of all at once where that can be; where it cannot, of halves, so
    that in the end a bad one stands alone, with the reason."""
    try:
        return [(places, ask(places))]
    except _BAD as error:
        if len(places) == 1:
            return [(places, " ".join(str(error).split())[:_SHOWN])]
    half = len(places) // 2
    return each_alone(ask, places[:half]) + each_alone(ask, places[half:])


def _column(name: str, values: list[Any], read: Read, problems: list[str | None]) -> pa.Array:
    """Values [B] in one type, null where they cannot be read, which is a problem then."""
    parts = []
    said = each_alone(lambda places: read(array_of(_plain(values, places))), range(len(values)))
    for places, part in said:
        if isinstance(part, str):
            problems[places[0]] = problems[places[0]] or f"{name}: {part}"
            part = read(pa.nulls(1))
        parts.append(part)
    return pa.concat_arrays(parts)


def _plain(values: list[Any], places: Sequence[int]) -> list[Any]:
    """The values at some places: no lists of lists, which may be too deep to look into."""
    chosen = [values[place] for place in places]
    for value in chosen:
        if isinstance(value, list | tuple | np.ndarray):
            if len(value) > LONGEST:
                raise ValueError(f"{len(value):,} entries: at most {LONGEST:,} are read")
            if any(isinstance(entry, list | tuple | Mapping | np.ndarray) for entry in value):
                raise ValueError("a list holds a list or an object")
    return chosen


def refuse_long_lists(requests: pa.Table) -> None:
    """Raises DataError naming the first request with a list of more entries than are read: all of a
    batch would be padded to its length."""
    for name in requests.column_names:
        column = requests.column(name)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), 0)
            if (pc.max(lengths).as_py() or 0) > LONGEST:
                row = int(np.argmax(lengths.to_numpy() > LONGEST))
                raise DataError(
                    f"request {row} has {lengths[row].as_py():,} entries in {name!r}: at most "
                    f"{LONGEST:,} are read, give the newest"
                )


def _compare_lengths(
    times: Times, columns: Mapping[str, pa.Array], problems: list[str | None]
) -> None:
    lengths, expected = (
        pc.fill_null(pc.list_value_length(columns[name]), -1).to_numpy()
        for name in (times.name, times.of.name)
    )
    for row in np.flatnonzero((lengths != expected) & (lengths >= 0)).tolist():
        problems[row] = problems[row] or (
            f"{times.name}: {lengths[row]} values for {max(0, expected[row])} of {times.of.name}: "
            "give one for each"
        )


def _chosen(rows: np.ndarray, these: pa.Array, others: pa.Array) -> pa.Array:
    """`these` in the rows that are true, and `others` elsewhere."""
    own = np.arange(len(rows))
    return pa.concat_arrays([others, these]).take(pa.array(np.where(rows, own + len(rows), own)))
