"""Truth: what the synthetic source planted, saved beside its log and read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.sources.synthetic_world import Items, Users, World

START_S = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())  # the log's first second
_WORLD, _ITEMS, _USERS = "world.json", "items.parquet", "users.parquet"
_ITEM_COLUMNS = ("cluster", "rank", "place", "price")


@dataclass(frozen=True)
class Truth:
    """The planted truth. Row n of `items` and `users` has id n + 1.

    Ids, clusters and prices are arrays [n]; times are datetime64 (UTC).
    """

    world: World
    items: Items
    users: Users

    @classmethod
    def load(cls, folder: Path) -> Truth:
        """Read the truth of a store. Raises DataError when `folder`/truth is not there or torn."""
        truth = Path(folder) / "truth"
        try:
            world = World.model_validate_json((truth / _WORLD).read_text())
            items = read_parquet(truth / _ITEMS)
            users = read_parquet(truth / _USERS)
            columns = (items[name].to_numpy() for name in _ITEM_COLUMNS)
            arranged = Items.arrange(world, *columns)
            return cls(world, arranged, Users(first=0, **_arrays(users)))
        except (DataError, OSError, ValueError, KeyError) as error:
            why = str(error).splitlines()[0]
            raise DataError(
                f"{truth} cannot be read ({why}): is this a store made from the synthetic source?"
            ) from None

    def affinity(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The user's weight, in [0, 1], on the item's cluster at that time."""
        cluster = self.items.cluster[np.asarray(item) - 1]
        return self.users.affinity(np.asarray(user) - 1, cluster, self._moved(time))

    def click_probability(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """P(click) if the item were shown to the user at that time.

        Averaged over the items that a policy would show, it is the true value of that policy.
        """
        price = self.items.log_price[np.asarray(item) - 1]
        return self.world.click_probability(self.affinity(user, item, time), price)

    def buy_probability(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """P(purchase), given a click."""
        price = self.items.log_price[np.asarray(item) - 1]
        return self.world.buy_probability(self.affinity(user, item, time), price)

    def successors(self, item: np.ndarray) -> np.ndarray:
        """Ids [n, successors] of the items that tend to follow, the most probable first."""
        return self.items.successors(np.asarray(item) - 1) + 1

    def _moved(self, time: np.ndarray) -> np.ndarray:
        seconds = np.asarray(time, dtype="datetime64[us]").astype(np.int64) / 1e6 - START_S
        return self.world.moved(seconds)


def save_truth(folder: Path, world: World, items: Items, blocks: Iterator[Users]) -> None:
    """Write what `Truth.load` reads; the users block by block."""
    options = world.model_dump_json(include=set(World.model_fields), indent=2)
    (folder / _WORLD).write_text(options + "\n")
    table = pa.table({name: getattr(items, name) for name in _ITEM_COLUMNS})
    pq.write_table(table, folder / _ITEMS, write_page_checksum=True)
    writer = None
    for users in blocks:
        table = pa.table({name: _column(value) for name, value in _fields(users)})
        writer = writer or pq.ParquetWriter(folder / _USERS, table.schema, write_page_checksum=True)
        writer.write_table(table)
    assert writer is not None  # a world has users
    writer.close()


def _fields(users: Users) -> Iterator[tuple[str, np.ndarray]]:
    for field in fields(Users):
        if field.name != "first":
            yield field.name, getattr(users, field.name)


def _column(value: np.ndarray) -> pa.Array:
    if value.ndim == 1:
        return pa.array(value)
    return pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])


def _arrays(table: pa.Table) -> dict[str, np.ndarray]:
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            arrays[name] = column.flatten().to_numpy().reshape(-1, column.type.list_size)
        else:
            arrays[name] = column.to_numpy()
    return arrays
