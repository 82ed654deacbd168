"""Files and folders that appear whole or not at all, whatever kills the program that makes them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import DataError
from feature_store.leftovers import hold, remove_left, remove_tree, sweep_scratch
from feature_store.trees import json_tree

ROW_GROUP_ROWS = 1 << 17
_LEFT = re.compile(r"\..+\.(partial|removed)-[0-9a-f]{12}")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, renamed to it when the block ends without an error.

    A folder that stands there already is replaced. What killed programs left behind is removed.

    Raises DataError as `staging`.
    """
    folder = Path(folder).absolute()
    with staging(folder) as aside:
        yield aside
        _publish(aside, folder)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, removed when the block ends, unless it was renamed by then.

    What killed programs left behind is removed.

    Raises:
        DataError: another program is building the same folder, or it cannot be written.
    """
    folder = Path(folder).absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not restore(folder):
            raise DataError(f"{folder} is being built by another program: wait for it to end")
        aside, handle = hold(lambda: _made(_aside(folder, "partial")))
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield aside
    except OSError as error:  # a full disk, for one
        raise cannot_write(folder, error) from None
    finally:
        remove_tree(aside)
        os.close(handle)


def _aside(folder: Path, why: str) -> Path:
    return folder.with_name(f".{folder.name}.{why}-{uuid.uuid4().hex[:12]}")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _leftovers(folder: Path, why: str) -> list[Path]:
    prefix = f".{folder.name}.{why}-"
    return sorted(path for path in folder.parent.iterdir() if path.name.startswith(prefix))


def restore(folder: Path) -> bool:
    """Bring back a folder whose replacement was killed between its two renames, and remove what
    killed programs left beside it, and of temporary files. False, and nothing is done beside it,
    where another program is building it."""
    sweep_scratch()
    if not folder.parent.is_dir():
        return True
    if not all([remove_left(path) for path in _leftovers(folder, "partial")]):
        return False
    replaced = _leftovers(folder, "replaced")
    if replaced and not os.path.lexists(folder):
        os.rename(replaced.pop(0), folder)
    for path in replaced:
        remove_tree(path)
    return True


def discard(folder: Path) -> None:
    """Remove a folder, of which nothing is there any more from the first moment on."""
    if folder.exists():
        aside = _aside(folder, "removed")
        os.rename(folder, aside)
        remove_tree(aside)


def tidy(folder: Path) -> None:
    """Remove what killed programs were writing or removing in a folder."""
    for entry in os.scandir(folder):
        if _LEFT.fullmatch(entry.name):
            remove_left(Path(entry.path))


def _publish(staging: Path, folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        old = _aside(folder, "replaced")
        os.rename(folder, old)
        os.rename(staging, folder)
        remove_tree(old)
    else:
        os.rename(staging, folder)
    sync(folder.parent)


def write_parquet(
    table: pa.Table,
    path: Path,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
    metadata: dict[bytes, bytes] | None = None,
    delta: Collection[str] = (),
) -> None:
    """Write a Parquet file that appears whole or not at all: aside, fsync, rename.

    Columns of whole numbers or times named in `delta` are written as differences, which are small
    where they nearly ascend; all others as places in a dictionary, while that is short.
    """
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    write_tables([table], path, row_group_rows=row_group_rows, delta=delta)


def write_tables(
    tables: Iterable[pa.Table],
    path: Path,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
    delta: Collection[str] = (),
) -> None:
    """Write tables of one schema, at least one, as `write_parquet` writes one that holds them
    all; a single one is in memory at a time."""
    with written(path) as file, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            if writer is None:
                writer = stack.enter_context(parquet_writer(file, table.schema, delta))
            writer.write_table(table, row_group_size=row_group_rows)


def parquet_writer(
    file: BinaryIO | Path, schema: pa.Schema, delta: Collection[str] = ()
) -> pq.ParquetWriter:
    """What writes Parquet as this project does; `delta` as of `write_parquet`."""
    leaves = {field.name: _leaf(field.name, field.type) for field in schema}
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=[leaf for name, leaf in leaves.items() if name not in delta],
        column_encoding={leaves[name]: "DELTA_BINARY_PACKED" for name in delta} or None,
    )


def _leaf(name: str, kind: pa.DataType) -> str:
    """What Parquet calls the values of a column, which may lie in lists."""
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return _leaf(f"{name}.list.element", kind.value_type) if nested else name


def write_text(text: str, path: Path) -> None:
    """Write a text file that appears whole or not at all."""
    write_bytes(text.encode(), path)


def write_bytes(contents: bytes, path: Path) -> None:
    """Write a file that appears whole or not at all."""
    with written(path) as file:
        file.write(contents)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place, on the disk, once it is written. What killed
    programs left in its folder is removed.

    Raises DataError when it cannot be written.
    """
    aside, handle = path, -1
    try:
        tidy(path.parent)
        aside, handle = hold(lambda: _touched(_aside(path, "partial")))
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        if handle >= 0:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            os.close(handle)


def _touched(path: Path) -> Path:
    path.touch(exist_ok=False)
    return path


def cannot_write(path: Path, error: OSError) -> DataError:
    """What to say of a file or folder that cannot be written: also how much of its disk is free."""
    reason = error.strerror or " ".join(str(error).split())
    return DataError(
        f"{path} cannot be written: {reason}; {free_bytes(path) / 1e9:.2f} GB are free"
    )


def free_bytes(path: Path) -> int:
    """Free on the disk that a file or folder lies on, or will."""
    at = Path(path).absolute()
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).free


def read_json(path: Path) -> dict[str, Any]:
    """The tree that `write_text` put into a file; empty where there is none, or half of one."""
    try:
        tree = json_tree(path.read_text())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def replace_link(path: Path, target: str) -> None:
    """Make `path` a link to `target`, in one step: whoever follows it comes to the old place or to
    the new one. What is no link there, such as the folder that a copying program has made of one,
    is removed once the link stands in its place.

    What killed programs left behind is removed, so one program at a time may do this.
    """
    restore(path)
    aside = _aside(path, "partial")
    os.symlink(target, aside)
    try:
        if path.is_symlink() or not path.is_dir():
            os.replace(aside, path)
        else:
            old = _aside(path, "replaced")
            os.rename(path, old)
            os.rename(aside, path)
            remove_tree(old)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other program holds the lock of a folder, and hold it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring a folder and all that it holds to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Bring a file, or what a folder says of its entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
