"""What a store keeps of a user, as bytes: how many events, the newest moment, the events, and the
texts of their items one behind the other, where ids are texts."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from recsys.online.events import ROW, Events

NEVER = -(1 << 63)  # the newest moment of a user without events
_HEAD = struct.Struct("<4sIq")  # the format, events, microseconds of the newest that was taken
_FORMAT = b"rsu1"


def unpack(records: Sequence[bytes | None], kind: pa.DataType) -> tuple[Events, np.ndarray]:
    """The events that U records hold, and of each the newest moment [U], NEVER where there is no
    record. `kind` is the type of the items' ids. Raises DataError for what is no record."""
    newest = np.full(len(records), NEVER)
    counts = np.zeros(len(records), np.int64)
    fixed, texts = [], []
    for place, record in enumerate(records):
        if record is None:
            continue
        if len(record) < _HEAD.size:
            raise _broken()
        mark, count, newest[place] = _HEAD.unpack_from(record)
        end = _HEAD.size + count * ROW.itemsize
        if mark != _FORMAT or len(record) < end:
            raise _broken()
        counts[place] = count
        fixed.append(record[_HEAD.size : end])
        texts.append(record[end:])
    rows = np.frombuffer(b"".join(fixed), ROW)
    owner = np.repeat(np.arange(len(records)), counts)
    return Events(owner, rows, _items(rows["item"], b"".join(texts), kind)), newest


def pack(events: Events, newest: np.ndarray) -> list[bytes]:
    """The records of users whose events lie one behind the other, owner by owner."""
    rows = events.rows.copy()
    bounds = np.searchsorted(events.owner, np.arange(len(newest) + 1))
    if text := pa.types.is_string(events.items.type):
        rows["item"] = pc.binary_length(events.items).to_numpy()
        ends = np.concatenate([[0], np.cumsum(rows["item"])])[bounds]
        tail = memoryview(_texts(events.items))
    else:
        rows["item"] = events.items.to_numpy()
    fixed = memoryview(rows.tobytes())
    records = []
    for place, (first, last) in enumerate(pairwise(bounds.tolist())):
        head = _HEAD.pack(_FORMAT, last - first, int(newest[place]))
        body = fixed[first * ROW.itemsize : last * ROW.itemsize]
        behind = tail[int(ends[place]) : int(ends[place + 1])] if text else b""
        records.append(b"".join((head, body, behind)))
    return records


def _items(numbers: np.ndarray, texts: bytes, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_string(kind):
        if texts:
            raise _broken()
        return pa.array(np.ascontiguousarray(numbers), kind)
    offsets = np.concatenate([[0], np.cumsum(numbers)])
    if (numbers < 0).any() or offsets[-1] != len(texts) or len(texts) >= 1 << 31:
        raise _broken()
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(texts)]
    items = pa.Array.from_buffers(pa.string(), len(numbers), buffers)
    try:
        items.validate(full=True)
    except pa.ArrowInvalid:
        raise _broken() from None
    return items


def _texts(items: pa.Array) -> bytes:
    """All of them, one behind the other."""
    _, offsets, data = items.buffers()
    if not len(items) or data is None:
        return b""
    bounds = np.frombuffer(offsets, np.int32)[items.offset :][: len(items) + 1]
    return data[int(bounds[0]) : int(bounds[-1])].to_pybytes()


def _broken() -> DataError:
    return DataError("what is kept of a user cannot be read: sync the events to another store")
