"""Makes a delta of two bundles."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.errors import DataError
from feature_store.leftovers import scratch
from recsys.serving.bundle import CATALOGUE, USERS, Bundle
from recsys.serving.delta.matching import match
from recsys.serving.delta.record import (
    ByBytes,
    ByRows,
    DeltaRecord,
    Recipe,
    Same,
    Writer,
    new_member,
    runs_member,
    write_delta,
)
from recsys.serving.delta.runs import NEW, mapped, runs_of
from recsys.serving.delta.tables import arrow_of, made_of_rows, read_table, sources, write_table
from recsys.serving.files import digest, opening, plain_file
from recsys.serving.manifest import MANIFEST
from recsys.serving.signature import SIGNATURE

_LARGE = 1 << 20  # bytes of a table that takes a while to write again:
_SLOW = 4  # so many times the bytes may travel instead


def make_delta(old: Path, new: Path, out: Path) -> DeltaRecord:
    """Write what is needed to make the bundle `new` of `old`, to the byte.

    Raises DataError where either is not as it should be, or both are the same.
    """
    with opening(old):
        base = Bundle.open(old)
    with opening(new):
        target = Bundle.open(new)
    manifest = plain_file(target.folder, MANIFEST).read_bytes()
    from_, to = digest(plain_file(base.folder, MANIFEST)), hashlib.sha256(manifest).hexdigest()
    if from_ == to:
        raise DataError(f"{new} is the same bundle as {old}: there is nothing to apply")
    members = {MANIFEST: manifest}
    if (target.folder / SIGNATURE).exists():
        members[SIGNATURE] = plain_file(target.folder, SIGNATURE).read_bytes()
    files: dict[str, Recipe] = {}
    for number, (name, expected) in enumerate(sorted(target.manifest.files.items())):
        if base.manifest.files.get(name) == expected:
            files[name] = Same()
        else:
            files[name], made = _recipe(base, target, name, number)
            members |= made
    record = DeltaRecord(
        base=from_,
        target=to,
        files=files,
        members={name: hashlib.sha256(made).hexdigest() for name, made in members.items()},
        versions={"pyarrow": pa.__version__},
    )
    write_delta(out, record, members)
    return record


def _recipe(
    base: Bundle, target: Bundle, name: str, number: int
) -> tuple[Recipe, dict[str, bytes]]:
    """How a file that differs is made: by rows where it is a table that can be written again to the
    byte, unless there is little to gain over bytes, which are copied faster."""
    path = target.file(name)
    old = base.folder / name if name in base.manifest.files else None
    runs, fresh = _by_bytes(old, path)
    members = _members(number, runs, fresh)
    by_bytes: Recipe = ByBytes(member=number, size=path.stat().st_size)
    if old is None or (writer := _writer(name)) is None:
        return by_bytes, members
    rows = _by_rows(old, path, _key(target, writer), writer, number)
    worth = _SLOW if path.stat().st_size > _LARGE else 1
    if rows is not None and worth * _size(rows[1]) < _size(members):
        return rows
    return by_bytes, members


def _by_bytes(old: Path | None, new: Path) -> tuple[np.ndarray, bytes]:
    with mapped(old) as before, mapped(new) as after:
        arrays = [np.frombuffer(view, np.uint8) for view in (before, after)]
        runs = match(*arrays)
        fresh = b"".join(
            arrays[1][end - count : end].tobytes()
            for (start, count), end in zip(runs.tolist(), np.cumsum(runs[:, 1]), strict=True)
            if start == NEW
        )
        del arrays
    return runs, fresh


def _by_rows(
    old: Path, new: Path, key: str, writer: Writer, number: int
) -> tuple[Recipe, dict[str, bytes]] | None:
    """The recipe by rows, and its members; None where they would not make the file to the byte."""
    (before, _), (after, batches) = read_table(old), read_table(new)
    if before.schema != after.schema or key not in after.column_names:
        return None
    try:
        source = sources(before, after, key)
        runs = runs_of(source)
        fresh = after.take(pa.array(np.flatnonzero(source == NEW))).combine_chunks()
        with scratch("delta") as folder:
            again = folder / new.name
            made = made_of_rows(before, runs, fresh)
            write_table(made, writer, batches, again)
            if digest(again) != digest(new):
                return None
    except (pa.ArrowException, TypeError):  # a type that is not compared, or too large a table
        return None
    recipe = ByRows(
        member=number,
        size=new.stat().st_size,
        writer=writer,
        rows=after.num_rows,
        batches=tuple(batches),
    )
    return recipe, _members(number, runs, arrow_of(fresh))


def _members(number: int, runs: np.ndarray, fresh: bytes) -> dict[str, bytes]:
    sink = io.BytesIO()
    np.save(sink, runs)
    return {runs_member(number): sink.getvalue(), new_member(number): fresh}


def _size(members: dict[str, bytes]) -> int:
    return sum(map(len, members.values()))


def _writer(name: str) -> Writer | None:
    writers: dict[str, Writer] = {USERS: "users", CATALOGUE: "parquet"}
    if name.endswith(".arrow"):
        return writers.get(name, "vocabulary")
    return writers.get(name)


def _key(bundle: Bundle, writer: Writer) -> str:
    keys: dict[Writer, Callable[[], str]] = {
        "users": lambda: bundle.schema.user,
        "parquet": lambda: bundle.schema.item,
        "vocabulary": lambda: "id",
    }
    return keys[writer]()
