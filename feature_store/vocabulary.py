"""Vocabulary: raw id <-> row. Row 0 is every id that was not seen.

It only grows at its end, so that a trained table stays right when ids are added. Ids that are too
many, or too short-lived, to be listed have none: `Keys` stands in its place, and codes in rows'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from feature_store.errors import ConfigError, DataError
from feature_store.file_names import file_name, original_name
from feature_store.hashing import codes_of, keys_of, keys_of_codes
from feature_store.ids import as_ids
from feature_store.storage import Place, Remote

UNKNOWN = 0
OF_KEYS = "keys of "  # with which fingerprints begin of ids without a vocabulary
_WITHOUT = b"recsys.without_vocabulary"
_FEW = 16  # below one id for so many of the vocabulary a search is faster than hashing them all


def vocabulary_file(table: str) -> str:
    """The name of the file of a table's ids."""
    return f"{file_name(table)}.arrow"


class Vocabulary:
    """Raw ids; the id at place i has row i + 1. Ids fitted together are in ascending order."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values

    @property
    def values(self) -> pa.Array:
        """The raw ids of rows 1, 2, ..."""
        return self._values

    @classmethod
    def fit(
        cls, *columns: pa.Array | pa.ChunkedArray, base: Vocabulary | None = None
    ) -> Vocabulary:
        """The distinct non-null values of the columns (lists are flattened), sorted.

        With `base` they follow its ids, whose rows stay as they are.
        """
        parts = []
        for column in columns:
            if pa.types.is_list(column.type):
                column = pc.list_flatten(column)
            parts.append(pc.unique(column))
        distinct = pc.unique(pa.chunked_array(parts)).drop_null()
        if base is not None:
            known = base.values.cast(distinct.type)
            distinct = distinct.filter(pc.invert(pc.is_in(distinct, value_set=known)))
        added = distinct.take(pc.sort_indices(distinct))
        return cls(added if base is None else pa.concat_arrays([known, added]))

    def __len__(self) -> int:
        """Rows of a table for this vocabulary: the ids and the unknown row."""
        return len(self.values) + 1

    @property
    def type(self) -> pa.DataType:
        """The type of the raw ids."""
        return self.values.type

    def continues(self, base: Vocabulary) -> bool:
        """Whether it begins with the ids of `base`."""
        return not isinstance(base, Keys) and self.fingerprint_of(len(base)) == base.fingerprint

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Rows [n] int64 of `ids`; 0 for null and for ids that were not fitted.

        Whole columns go through a hash table that is made for them; a few ids, as a request has
        them, are searched among sorted keys that are kept. Ids of another type are read as
        `as_ids` does, which raises ValueError for what is no id.
        """
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        if ids.type != self.values.type:
            ids = as_ids(ids, self.values.type)
        if ids.equals(self.values):  # as of a bundle whose items are all there are
            return np.arange(1, len(self))
        if _FEW * len(ids) < len(self.values):
            return self._sorted_keys.places(ids) + 1
        rows = pc.index_in(ids, value_set=self.values)
        return np.asarray(pc.fill_null(pc.add(rows.cast(pa.int64()), 1), UNKNOWN))

    @cached_property
    def _sorted_keys(self) -> _SortedKeys:
        return _SortedKeys(self.values)

    def decode(self, rows: np.ndarray) -> pa.Array:
        """Raw ids [n] of `rows`; null for row 0."""
        places = np.asarray(rows, dtype=np.int64) - 1
        return self.values.take(pa.array(places, mask=places < 0))

    @property
    def keys(self) -> np.ndarray:
        """A 64-bit key of every id, in the order of rows 1, 2, ...: of its raw id alone, whatever
        else is known. Any number may be a key, so unknown has none."""
        return keys_of(self.values)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over the ids and their order."""
        return self.fingerprint_of(len(self))

    def fingerprint_of(self, rows: int) -> str:
        """The fingerprint that the vocabulary had when it had so many rows."""
        values = self.values.slice(0, rows - 1)
        digest = hashlib.sha256(f"{values.type} {len(values)}".encode())
        if pa.types.is_string(values.type):
            digest.update(np.asarray(pc.binary_length(values), np.int64).tobytes())
            offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset :]
            first, last = (int(offsets[0]), int(offsets[len(values)])) if len(values) else (0, 0)
            digest.update(memoryview(values.buffers()[2] or b"")[first:last])
        else:
            digest.update(np.asarray(values, np.int64).tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the ids as an Arrow file."""
        feather.write_feather(pa.table({"id": self.values}), str(path), compression="zstd")

    @classmethod
    def load(cls, path: Place) -> Vocabulary:
        """Read what `save` wrote, which may be that of `Keys`. Raises DataError when it is absent
        or torn."""
        try:
            held = pa.BufferReader(path.read_bytes()) if isinstance(path, Remote) else str(path)
            table = feather.read_table(held)
            table.validate(full=True)  # Arrow reads what a file says without looking at it
            column = table.column("id").combine_chunks()
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"vocabulary {path} cannot be read: {reason}") from None
        if (table.schema.metadata or {}).get(_WITHOUT) is not None:
            return Keys(column.type, original_name(Path(path.name).stem))
        return cls(column if isinstance(column, pa.Array) else pa.array([], column.type))


class Keys(Vocabulary):
    """Ids of one type that nobody lists: an id's code is its 64-bit key, and every id has one.

    Whoever asks for a list of the ids, or for their number, gets a ConfigError with the way out.
    Codes of strings cannot be turned back; `names` finds the raw ids of those that were asked
    for, where they are kept.
    """

    def __init__(
        self,
        kind: pa.DataType,
        table: str = "",
        names: Callable[[], tuple[np.ndarray, pa.Array]] | None = None,
    ) -> None:
        """`table` names the ids in errors; `names` gives ascending codes and their raw ids."""
        self._kind = kind
        self._table = table
        self._names = names

    @property
    def type(self) -> pa.DataType:
        """The type of the raw ids."""
        return self._kind

    @property
    def values(self) -> pa.Array:  # type: ignore[override]
        """There are none. Raises ConfigError."""
        raise ConfigError(
            f"the ids of {self._table} have no vocabulary (embeddings.tables.{self._table}."
            "vocabulary = 'none'), and what is asked for needs a list of them: leave it out, or "
            "set vocabulary = 'log' there"
        )

    def __len__(self) -> int:
        """There is no number of them. Raises ConfigError."""
        return len(self.values)

    def continues(self, base: Vocabulary) -> bool:
        """Whether `base` has none either, of the same type."""
        return isinstance(base, Keys) and base.type == self.type

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Codes [n] int64 of `ids`, 0 for null. Raises ValueError for what is no id."""
        return codes_of(ids if ids.type == self.type else as_ids(ids, self.type))

    def decode(self, codes: np.ndarray) -> pa.Array:
        """Raw ids [n] of codes; null for 0, and for strings that are not known."""
        codes = np.asarray(codes, dtype=np.int64)
        if pa.types.is_integer(self.type):
            return pa.array(keys_of_codes(codes), self.type, mask=codes == 0)
        known, names = (np.empty(0, np.int64), None) if self._names is None else self._names()
        places = np.searchsorted(known, codes)
        there = places < len(known)
        there[there] = known[places[there]] == codes[there]
        if names is None:
            return pa.nulls(len(codes), self.type)
        return names.take(pa.array(places, mask=~there))

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The same for all ids of a type."""
        return f"{OF_KEYS}{self.type}"

    def fingerprint_of(self, rows: int) -> str:
        """The same."""
        return self.fingerprint

    def save(self, path: Path) -> None:
        """Write an Arrow file that holds no ids, and says that there are none."""
        table = pa.table({"id": pa.array([], self.type)}).replace_schema_metadata({_WITHOUT: "yes"})
        feather.write_feather(table, str(path), compression="zstd")


class _SortedKeys:
    """Finds ids by binary search of their 64-bit keys: eight bytes an id to keep, four more where
    the keys do not ascend with the places. Integers that ascend are their own keys, and cost
    nothing; those without a gap need no search."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values
        self._keys = keys_of(values)
        self._order: np.ndarray | None = None
        if not (self._keys[1:] >= self._keys[:-1]).all():
            order = np.argsort(self._keys)
            self._keys = self._keys[order]
            self._order = order.astype(np.min_scalar_type(len(order)))
        whole = self._order is None and pa.types.is_integer(values.type)
        self._dense = whole and bool((self._keys[1:] - self._keys[:-1] == 1).all())

    def places(self, ids: pa.Array) -> np.ndarray:
        """Places [n] int64 of `ids`; -1 for null and for ids that are not there."""
        if self._dense and len(self._keys):  # a difference that overflows is outside, too
            places = np.asarray(ids.cast(pa.int64()).fill_null(0)) - self._keys[0]
            inside = (places >= 0) & (places < len(self._keys))
            if ids.null_count:
                inside &= ids.is_valid().to_numpy(zero_copy_only=False)
            return np.where(inside, places, -1)
        places = np.full(len(ids), -1)
        left = np.flatnonzero(ids.is_valid())
        keys = keys_of(ids.drop_null())
        candidates = np.searchsorted(self._keys, keys)
        while len(left):  # again only where different ids have equal keys
            alike = candidates < len(self._keys)
            alike[alike] = self._keys[candidates[alike]] == keys[alike]
            left, keys, candidates = left[alike], keys[alike], candidates[alike]
            asked = candidates if self._order is None else self._order[candidates].astype(np.int64)
            same = np.asarray(
                pc.equal(self._values.take(pa.array(asked)), ids.take(pa.array(left)))
            )
            places[left[same]] = asked[same]
            left, keys, candidates = left[~same], keys[~same], candidates[~same] + 1
        return places
