"""The lists of a log of exposures, and what followed: L lists of at most k places, I items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.ids import plain
from feature_store.parquet import read_parquet
from feature_store.sources.paths import find
from recsys.policy.exposures import CLICK, EXPOSURE, PURCHASE, exposure_schema, rows_of

CLICKS, GMV = "clicks", "GMV"
_NEEDED = ("user", "item", "event_type", "time", "list_id", "place", "propensity")


@dataclass(frozen=True)
class LoggedLists:
    """Lists in the order of their ids, and the reactions that name them.

    Attributes:
        users: raw ids of users [U], and `of_user` [L] whose each list is.
        times: when each was shown [L], microseconds since 1970.
        items: raw ids of items [I].
        shown: [L, k] rows of `items`; -1 where a list has nothing.
        propensities: [L, k] of the item at its place; 1 where there is none.
        given: [L, k] likewise, given the items before it; None where the log does not say.
        rewards: by name [L, k]: 1 where the item was clicked, and the money that it brought.
        reacted: (`of_user`, rows of `items`, microseconds) [R] of clicks and purchases, in order
            of time: what histories are made of.
        elsewhere: reactions that name no list of these, or an item that it did not show: they
            count for none.
        unpriced: purchases without a price, which bring nothing.
    """

    users: pa.Array
    of_user: np.ndarray
    times: np.ndarray
    items: pa.Array
    shown: np.ndarray
    propensities: np.ndarray
    given: np.ndarray | None
    rewards: dict[str, np.ndarray]
    reacted: tuple[np.ndarray, np.ndarray, np.ndarray]
    elsewhere: int = 0
    unpriced: int = 0

    @property
    def k(self) -> int:
        """Places of the longest list."""
        return self.shown.shape[1]

    def __len__(self) -> int:
        return len(self.shown)


def read_lists(pattern: str, arms: Sequence[str] = ()) -> LoggedLists:
    """Read the files that `recsys.policy.exposure_log.ExposureLog` writes: a file, a folder or a
    pattern; with `arms` only the lists that these have shown.

    Raises DataError for files that are no such log, and naming the list whose rows contradict
    each other.
    """
    tables = []
    for path in find(pattern):
        table = read_parquet(path)
        if missing := [name for name in _NEEDED if name not in table.column_names]:
            have = ", ".join(table.column_names)
            raise DataError(
                f"{path} is no log of exposures: no column {missing[0]!r}; it has: {have}"
            )
        tables.append(table)
    types = {tuple(table.schema.field(n).type for n in ("user", "item")) for table in tables}
    if len(types) > 1:
        raise DataError(f"{pattern}: ids of users or items differ in type from file to file")
    user, item = (_id_type(kind) for kind in types.pop())
    columns = exposure_schema(user, item)
    try:
        rows = pa.concat_tables(
            rows_of(table.select([n for n in columns.names if n in table.column_names]), columns)
            for table in tables
        )
    except DataError as error:
        raise DataError(f"{pattern}: {error}") from None
    return lists_of(rows, arms)


def lists_of(rows: pa.Table, arms: Sequence[str] = ()) -> LoggedLists:
    """The lists of a table of exposures, clicks and purchases."""
    kinds = rows.column("event_type")
    every = rows.filter(pc.equal(kinds, EXPOSURE))
    exposed = _of_arms(every, arms)
    _check(exposed)
    lists = pc.unique(exposed.column("list_id")).sort()
    users, items = pc.unique(plain(rows.column("user"))), pc.unique(plain(rows.column("item")))
    of_list = _codes(exposed.column("list_id"), lists)
    place = exposed.column("place").to_numpy() - 1
    shape = (len(lists), int(place.max()) + 1)
    shown = np.full(shape, -1, dtype=np.int64)
    _fill(shown, of_list, place, _codes(exposed.column("item"), items), lists, "items")
    of_user = np.full((len(lists), 1), -1, dtype=np.int64)
    first = np.zeros_like(of_list)
    _fill(of_user, of_list, first, _codes(exposed.column("user"), users), lists, "users")
    propensities, given, price = np.ones(shape), np.ones(shape), np.full(shape, np.nan)
    propensities[of_list, place] = exposed.column("propensity").to_numpy()
    has_prefix = exposed.column("given_prefix").null_count == 0
    if has_prefix:
        given[of_list, place] = exposed.column("given_prefix").to_numpy()
    price[of_list, place] = _floats(exposed.column("price"))
    times = np.full(len(lists), np.iinfo(np.int64).max)
    np.minimum.at(times, of_list, exposed.column("time").cast(pa.int64()).to_numpy())
    reactions = _once(rows.filter(pc.not_equal(kinds, EXPOSURE)))
    of_others = pc.is_in(reactions.column("list_id"), pc.unique(every.column("list_id")))
    of_others = pc.and_(of_others, pc.invert(pc.is_in(reactions.column("list_id"), lists)))
    own = reactions.filter(pc.invert(of_others))
    rewards, elsewhere, unpriced = _rewards(own, lists, items, shown, price)
    return LoggedLists(
        users=users,
        of_user=of_user[:, 0],
        times=times,
        items=items,
        shown=shown,
        propensities=propensities,
        given=given if has_prefix else None,
        rewards=rewards,
        reacted=_reacted(reactions, users, items),
        elsewhere=elsewhere,
        unpriced=unpriced,
    )


def _rewards(
    reactions: pa.Table, lists: pa.Array, items: pa.Array, shown: np.ndarray, price: np.ndarray
) -> tuple[dict[str, np.ndarray], int, int]:
    """Clicks and money [L, k], reactions to nothing that was shown, purchases without a price."""
    of_list = _codes(reactions.column("list_id"), lists)
    item = _codes(reactions.column("item"), items)
    at = np.full(len(item), -1)
    known = of_list >= 0
    hits = shown[of_list[known]] == item[known, None]
    at[known] = np.where(hits.any(axis=1), hits.argmax(axis=1), -1)
    there = at >= 0
    kinds = reactions.column("event_type")
    clicks, money = np.zeros(shown.shape), np.zeros(shown.shape)
    clicked = there & np.asarray(pc.equal(kinds, CLICK))
    clicks[of_list[clicked], at[clicked]] = 1.0
    bought = there & np.asarray(pc.equal(kinds, PURCHASE))
    rows, places = of_list[bought], at[bought]
    paid = _floats(reactions.column("price"))[bought]
    paid = np.where(np.isnan(paid), price[rows, places], paid)
    pieces = _floats(reactions.column("quantity"))[bought]
    np.add.at(money, (rows, places), np.nan_to_num(paid) * np.where(np.isnan(pieces), 1, pieces))
    rewards = {CLICKS: clicks}
    if bought.any():
        rewards[GMV] = money
    return rewards, int((~there).sum()), int(np.isnan(paid).sum())


def _reacted(
    reactions: pa.Table, users: pa.Array, items: pa.Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    times = reactions.column("time").cast(pa.int64()).to_numpy()
    order = np.argsort(times, kind="stable")
    user, item = _codes(reactions.column("user"), users), _codes(reactions.column("item"), items)
    return user[order], item[order], times[order]


def _once(reactions: pa.Table) -> pa.Table:
    """What was sent twice counts once."""
    names = ["user", "item", "event_type", "time", "list_id"]
    numbered = reactions.append_column("_row", pa.array(np.arange(reactions.num_rows)))
    first = numbered.group_by(names).aggregate([("_row", "min")]).column("_row_min")
    return reactions.take(first.sort())


def _of_arms(exposed: pa.Table, arms: Sequence[str]) -> pa.Table:
    if not exposed.num_rows:
        raise DataError("the log shows no lists: it has no rows of event type 'exposure'")
    if not arms:
        return exposed
    known = pc.unique(exposed.column("arm")).to_pylist()
    if unknown := [arm for arm in arms if arm not in known]:
        raise DataError(f"no list of the log is of arm {unknown[0]!r}; its arms: {_names(known)}")
    return exposed.filter(pc.is_in(exposed.column("arm"), pa.array(arms)))


def _names(values: list[str | None]) -> str:
    return ", ".join(sorted("none" if value is None else value for value in values))


def _check(exposed: pa.Table) -> None:
    """Raises DataError naming an exposure without list, place or propensity."""
    for name, low, rule in (
        ("list_id", None, "is missing"),
        ("place", 1, "must be at least 1"),
        ("propensity", 0, "must be above 0 and at most 1"),
        ("given_prefix", 0, "must be above 0 and at most 1"),
    ):
        column = exposed.column(name)
        if name == "given_prefix" and column.null_count == len(column):
            continue
        wrong = column.is_null()
        if low is not None:
            values = _floats(column)
            bad = ~(values >= 1) if name == "place" else ~((values > 0) & (values <= 1))
            wrong = pa.chunked_array([pa.array(bad)])
        if (row := pc.index(wrong, True).as_py()) >= 0:
            who, value = exposed.column("list_id")[row], exposed.column(name)[row]
            raise DataError(f"an exposure of list {who} has the {name} {value}: it {rule}")


def _fill(
    cells: np.ndarray,
    of_list: np.ndarray,
    place: np.ndarray,
    values: np.ndarray,
    lists: pa.Array,
    what: str,
) -> None:
    """Write values to their places. Raises DataError where a place has two of them."""
    cells[of_list, place] = values
    twice = np.flatnonzero(cells[of_list, place] != values)
    if len(twice):
        row = twice[0]
        where = f" at place {place[row] + 1}" if what == "items" else ""
        raise DataError(
            f"list {lists[of_list[row]]} has several {what}{where}: an id names one list alone"
        )


def _codes(values: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    """Rows of `known` [n]; -1 for what is not there."""
    codes = pc.index_in(plain(values), value_set=known)
    return np.asarray(pc.fill_null(codes, -1)).astype(np.int64)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy())


def _id_type(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(kind) else pa.string()
