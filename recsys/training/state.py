"""`state.json`, the part of a checkpoint that is JSON, and what it must hold to be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from feature_store.errors import DataError
from feature_store.trees import json_tree

FORMAT = 2
STATE = "state.json"


class _File(TypedDict):
    bytes: int
    sha256: str


class _Feature(TypedDict):
    table: str
    rows: int
    width: int
    lookups: list[list[str | int | None]]
    vocabulary: str | None


class _Table(TypedDict):
    rows: int
    width: int
    optimizer: str | None
    eviction: NotRequired[str]


class _Columns(TypedDict):
    dims: list[int]
    widths: dict[str, int]


class _Model(TypedDict):  # as recsys.training.growth.describe tells it
    layout: str | None
    hash_version: int | None
    features: dict[str, _Feature]
    tables: dict[str, _Table]
    columns: dict[str, _Columns]
    optimizer: str | None


class _Reader(TypedDict):
    examples: str
    epoch: int
    next_batch: int


class _Progress(TypedDict):  # of recsys.training.trainer, which knows the rest of it
    step: int


class _State(TypedDict):
    world: int
    files: dict[Annotated[str, Field(pattern=r"^[\w.]+$")], _File]
    model: _Model
    reader: NotRequired[_Reader]
    progress: NotRequired[_Progress]
    best_step: NotRequired[int | None]


_CHECK = TypeAdapter(_State)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint.

    Raises DataError when the folder holds no whole checkpoint, one of another format, or one whose
    state is not what this program writes.
    """
    try:
        state = json_tree((folder / STATE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no whole checkpoint: {error}") from None
    written = state.get("format") if isinstance(state, dict) else None
    if written != FORMAT:
        raise DataError(
            f"{folder} has checkpoint format {written}, this program reads {FORMAT}: train anew"
        )
    try:
        _CHECK.validate_python(state, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{folder} cannot be loaded: {STATE}: {key}: {first['msg']}; remove the folder to use "
            "an earlier checkpoint"
        ) from None
    return state
