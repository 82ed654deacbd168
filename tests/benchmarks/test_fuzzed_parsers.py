"""What `python -m benchmarks.fuzz` has found, by value, and that it finds things at all."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.parsers import TARGETS, Target
from benchmarks.fuzz import Fuzzing, at_random
from feature_store.errors import DataError
from pipelines.cli.fault import shortened

DEEP = 100_000


def delta(version: int = 20, flags: int = 0, **members: bytes) -> bytes:
    """A zip archive that asks for such a program, with these flags of its first entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"delta.json": b"{}", **members}.items():
            archive.writestr(name, content)
    packed = bytearray(buffer.getvalue())
    at = packed.index(b"PK\1\2")
    struct.pack_into("<HH", packed, at + 6, version, flags)
    return bytes(packed)


def zipped(*names: str) -> bytes:
    """An archive of files of these names, which are not where it says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"0 7\n")
    return buffer.getvalue().replace(b"PK\3\4", b"PK\3\5")


def a_name_that_is_none() -> bytes:
    packed = bytearray(delta(flags=0x800))
    packed[packed.rindex(b"delta.json")] = 0xC8
    return bytes(packed)


def runs_of(shape: str) -> bytes:
    """A whole delta whose array says that it is so large."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    record = {"format": 1, "base": "0" * 64, "target": "1" * 64, "files": {}, "versions": {}}
    record["members"] = {"0.runs.npy": hashlib.sha256(array).hexdigest()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("delta.json", json.dumps(record))
        archive.writestr("0.runs.npy", array)
    return buffer.getvalue()


DEEP_TREE = b'{"a": ' + b"[" * DEEP
FOUND: dict[str, list[bytes]] = {
    "figures": [DEEP_TREE, b'{"a": 1e999, "b": ' + b"9" * 5000 + b"}"],
    "examples": [DEEP_TREE, b"[]", b'{"rows_of": []}'],
    "checkpoint": [DEEP_TREE, b'{"format": 2, "step": ' + b"9" * 5000 + b"}"],
    "manifest": [DEEP_TREE],
    "report of ingest": [DEEP_TREE],
    "requests in a file": [DEEP_TREE, b"9" * 5000],
    "config": [b"a = " + b"[" * DEEP, b"seed = " + b"9" * 5000, b"a." * DEEP + b"b = 1", b"\xff"],
    "overrides": [
        b"a." * DEEP + b"b=1",
        b"trainer." * 999 + b"a=1",
        b"seed=" + b"[" * DEEP,
        b"seed=" + b"9" * 5000,
        b"seed=1e999",
    ],
    "filter": [b"(" * DEEP, b"not " * 900 + b"a = 1", b"a = " + b"9" * 900, b"a = 1e999"],
    "body Recommend": [b'{"user": ' + b"9" * 5000 + b"}", b'{"history": ' + b"[" * DEEP],
    "exposures": [
        struct.pack("<II", 0xFFFFFFF0, 0),
        struct.pack("<II", 1, zlib.crc32(b"a")) + b"a",
    ],
    "source in an archive": [zipped("train.txt\n1 9", "test.txt"), zipped("train.txt\r", "a")],
    "delta": [
        *(delta(version=92), delta(flags=1 << 5), delta(flags=1), a_name_that_is_none()),
        *(runs_of(f"({10**17},)"), runs_of("(" * 3000), runs_of(f"({10**6},)")),
    ],
}


@pytest.mark.parametrize("name", sorted(FOUND))
def test_what_was_found_is_told_in_a_line(name: str, tmp_path: Path) -> None:
    fuzzing = Fuzzing(TARGETS[name], tmp_path / "place")
    for data in (*TARGETS[name].seeds, *FOUND[name]):
        fuzzing.give(data)
    assert fuzzing.found == {}


def test_errors_that_no_user_should_see_are_found(tmp_path: Path) -> None:
    """One that is no error of ours, one that is no line, and memory that was asked for."""

    def read(data: bytes, _: Path) -> object:
        if data == b"large":
            return np.ones(3 << 22)
        raise ValueError("a\nb") if data == b"lines" else KeyError(data)

    target = Target((b"key", b"lines", b"large"), read, (ValueError,))
    fuzzing = Fuzzing(target, tmp_path / "place", most_kb=64 << 10)
    at_random(fuzzing, 0.0)
    (kind,) = fuzzing.found
    assert kind.startswith("KeyError at test_fuzzed_parsers.py:")
    for data in target.seeds:
        fuzzing.give(data)
    assert list(fuzzing.found.values()) == [b"key", b"lines", b"large"]


def test_a_line_has_an_end_where_a_file_has_none() -> None:
    assert (
        str(DataError("edges.zip/a\nb\r\x85c cannot be read")) == "edges.zip/a b  c cannot be read"
    )
    assert shortened("a" * 4000) == "a" * 4000
    assert len(shortened("a" * 10**6)) < 4100
