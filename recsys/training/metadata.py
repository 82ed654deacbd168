"""What torch.distributed.checkpoint says of a checkpoint's tensors, read without running any of it.

It lies in `.metadata` as a pickle, and reading a pickle calls whatever it names. Here its objects
become records of ours, which know no more than the state that they are given; what the records hold
is checked, and only then made into what torch reads tensors by.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from feature_store.errors import DataError

METADATA = ".metadata"


class _Record:
    """Stands in for an object of the pickle."""

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        """Nobody asks what it was made of: all that counts is in its state."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _sizes(values: Any = ()) -> tuple[Any, ...]:
    return tuple(values)


_PLACES = "torch.distributed.checkpoint."
_RECORDS: dict[tuple[str, str], Any] = {
    (module, name): type(name, (_Record,), {})
    for module, name in (
        (f"{_PLACES}metadata", "Metadata"),
        (f"{_PLACES}metadata", "MetadataIndex"),
        (f"{_PLACES}metadata", "TensorStorageMetadata"),
        (f"{_PLACES}metadata", "ChunkStorageMetadata"),
        (f"{_PLACES}metadata", "TensorProperties"),
        (f"{_PLACES}metadata", "_MEM_FORMAT_ENCODING"),
        (f"{_PLACES}metadata", "StorageMeta"),
        (f"{_PLACES}filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("pathlib", "PosixPath"),  # where it was written
        ("pathlib._local", "PosixPath"),
        ("builtins", "getattr"),  # by which Python 3.11.0 to 3.11.3 pickle members of enums
    )
} | {("torch", "Size"): _sizes}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if (module, name) not in _RECORDS:
            raise ValueError(f"it names {module}.{name}, which no checkpoint needs")
        return _RECORDS[module, name]


class CheckedReader(FileSystemReader):
    """Reads the tensors of a checkpoint by metadata that was checked."""

    def __init__(self, folder: Path, files: Mapping[str, Any]) -> None:
        """`files` are those of the checkpoint, with their `bytes`.

        Raises DataError where the metadata names what is no part of a checkpoint: a callable, a
        file that is not among them, bytes outside it.
        """
        super().__init__(folder)
        try:
            with open(folder / METADATA, "rb") as file:
                record = _Unpickler(file).load()
            self._checked = _metadata(record, files)
        except Exception as error:  # whatever a forged pickle makes of itself
            raise DataError(
                f"{folder} cannot be loaded: {METADATA} is not that of a checkpoint: "
                f"{error or type(error).__name__}; do not use it, nothing of it was run"
            ) from None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What was checked."""
        return self._checked


def _metadata(record: Any, files: Mapping[str, Any]) -> Metadata:
    held = _state(record, "Metadata")
    tensors: dict[str, Any] = {
        _is(name, str): _tensor(_state(tensor, "TensorStorageMetadata"))
        for name, tensor in held["state_dict_metadata"].items()
    }
    stored = {
        _index(_state(index, "MetadataIndex")): _storage(_state(info, "_StorageInfo"), files)
        for index, info in held["storage_data"].items()
    }
    return Metadata(tensors, storage_data=stored, storage_meta=StorageMeta())


def _tensor(held: Mapping[str, Any]) -> TensorStorageMetadata:
    dtype = _state(held["properties"], "TensorProperties")[0]
    size, chunks = _numbers(held["size"]), []
    for part in held["chunks"]:
        chunk = _state(part, "ChunkStorageMetadata")
        offsets, sizes = _numbers(chunk["offsets"]), _numbers(chunk["sizes"])
        if any(o + s > n for o, s, n in zip(offsets, sizes, size, strict=True)):
            raise ValueError(f"a part {sizes} at {offsets} of a tensor {size}")
        chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
    properties = TensorProperties(dtype=_is(dtype, torch.dtype))
    return TensorStorageMetadata(properties, torch.Size(size), chunks)


def _index(held: Mapping[str, Any]) -> MetadataIndex:
    offset, place = held.get("offset"), held.get("index")
    return MetadataIndex(
        _is(held["fqn"], str),
        None if offset is None else _numbers(offset),
        None if place is None else _is(place, int),
    )


def _storage(held: Mapping[str, Any], files: Mapping[str, Any]) -> _StorageInfo:
    name, start, length = held["relative_path"], _is(held["offset"], int), _is(held["length"], int)
    if name not in files:
        raise ValueError(f"it reads {name!r}, which is no file of the checkpoint")
    if min(start, length) < 0 or start + length > files[name]["bytes"]:
        raise ValueError(f"it reads {length} bytes at {start} of {name}, which is not that long")
    if held.get("transform_descriptors"):
        raise ValueError(f"it reads {name} through a transformation")
    return _StorageInfo(name, start, length)


def _state(record: Any, kind: str) -> Any:
    if not isinstance(record, _Record) or type(record).__name__ != kind:
        raise ValueError(f"{type(record).__name__} stands where {kind} belongs")
    return record.state


def _is(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    return value


def _numbers(values: Any) -> tuple[int, ...]:
    numbers = tuple(_is(value, int) for value in values)
    if any(number < 0 for number in numbers):
        raise ValueError(f"sizes of {numbers}")
    return numbers
