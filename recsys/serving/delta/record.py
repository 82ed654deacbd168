"""What a delta holds: a folder, or the same members in a zip file.

delta.json        the manifests that it leads from and to, and how every file is made
manifest.json     of the new bundle, and manifest.sig where that is signed
N.runs.npy        of a file: what is taken of the old one, and where what is new comes between
N.new             what is new: bytes, or of a table rows, as an Arrow file
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.durable import staged, written
from feature_store.errors import DataError
from recsys.serving.files import plain_file

RECORD = "delta.json"
_BROKEN = (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, RuntimeError)
FORMAT: Literal[1] = 1
Writer = Literal["vocabulary", "users", "parquet"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Same(_Frozen):
    """A file that is as it was."""

    kind: Literal["same"] = "same"


class ByBytes(_Frozen):
    """A file that is made of stretches of the old one and of new bytes, or of those alone."""

    kind: Literal["bytes"] = "bytes"
    member: int = Field(ge=0, description="The N of its members.")
    size: int = Field(ge=0, description="Bytes of the file.")


class ByRows(_Frozen):
    """A table that is made of rows of the old one and of new rows, and written by a writer."""

    kind: Literal["rows"] = "rows"
    member: int = Field(ge=0, description="The N of its members.")
    size: int = Field(ge=0, description="Bytes of the file.")
    writer: Writer = Field(description="What writes such a table.")
    rows: int = Field(ge=0, description="Rows of the table.")
    batches: tuple[Annotated[int, Field(ge=0)], ...] = Field(description="Rows of its batches.")


Recipe = Annotated[Same | ByBytes | ByRows, Field(discriminator="kind")]


class DeltaRecord(_Frozen):
    """`delta.json`."""

    format: Literal[1] = Field(FORMAT, description="Of the delta: what lies where.")
    base: Sha256 = Field(description="SHA-256 of the manifest of the old bundle.")
    target: Sha256 = Field(description="SHA-256 of the manifest of the new bundle.")
    files: dict[str, Recipe] = Field(description="How every file of the new bundle is made.")
    members: dict[str, Sha256] = Field(description="SHA-256 of every member besides this one.")
    versions: dict[str, str] = Field(description="Of what wrote it.")


def runs_member(member: int) -> str:
    """The member with the runs of a file."""
    return f"{member}.runs.npy"


def new_member(member: int) -> str:
    """The member with what is new of a file."""
    return f"{member}.new"


class DeltaFile:
    """An opened delta, of which each member is read when it is asked for, and checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        try:
            self._zip = None
            if path.is_file():
                self._zip = self._stack.enter_context(zipfile.ZipFile(path))
            contents = self._read(RECORD)
            self.record = DeltaRecord.model_validate_json(contents)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: {RECORD}: {where}: {first['msg']}") from None
        except _BROKEN as error:
            raise DataError(f"{path} is not a delta: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def member(self, name: str) -> bytes:
        """Raises DataError for one that is absent or altered."""
        contents = self._read(name)
        if hashlib.sha256(contents).hexdigest() != self.record.members.get(name):
            raise DataError(f"{self.path}: {name} was altered: make the delta again")
        return contents

    def runs(self, member: int) -> np.ndarray:
        """The runs of a file. Raises DataError as `member`, and for what is no array."""
        name = runs_member(member)
        try:
            runs: np.ndarray = np.load(io.BytesIO(self.member(name)), allow_pickle=False)
        except (*_BROKEN, MemoryError, SyntaxError, TokenError) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}") from None
        return runs

    def _read(self, name: str) -> bytes:
        if self._zip is None:
            return plain_file(self.path, name).read_bytes()
        try:
            packed = self._zip.getinfo(name)
            if packed.compress_type != zipfile.ZIP_STORED or packed.flag_bits & 1:
                raise DataError(f"{self.path}: {name} is compressed or encrypted, which none is")
            return self._zip.read(packed)
        except (KeyError, *_BROKEN) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}") from None


def write_delta(path: Path, record: DeltaRecord, members: Mapping[str, bytes]) -> None:
    """Write a delta that appears whole or not at all: a file where its name ends in .zip, else a
    folder. Raises DataError where it cannot be written."""
    contents = {RECORD: record.model_dump_json(indent=2).encode() + b"\n", **members}
    if path.suffix == ".zip":
        with written(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return
    with staged(path) as aside:
        for name, content in contents.items():
            (aside / name).write_bytes(content)
