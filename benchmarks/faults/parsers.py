"""Everything of ours that reads what strangers may have written, each as one function of bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from benchmarks.faults.configs import TREES
from benchmarks.faults.hostile import FILES, read
from feature_store.durable import read_json
from feature_store.errors import RecsysError
from feature_store.examples import ExamplesSummary
from feature_store.ingest import IngestReport
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from pipelines.cli.row_by_row import lines_of
from recsys.config.load import load_config, parse_config
from recsys.policy.exposure_log import ExposureLog
from recsys.server.errors import refused
from recsys.server.models import Events, Items, Recommend, Score, Similar
from recsys.serving.delta.record import RECORD, DeltaFile
from recsys.serving.expressions import parse
from recsys.serving.manifest import MANIFEST, Manifest
from recsys.serving.requests import ids_of
from recsys.training.state import STATE, read_state

Read = Callable[[bytes, Path], object]


class Target(NamedTuple):
    """A parser: what it is given at first, and how it reads bytes, in a folder of its own; errors
    that it may end with."""

    seeds: tuple[bytes, ...]
    read: Read
    errors: tuple[type[Exception], ...] = (RecsysError,)


def _written(name: str, parser: Callable[[Path], object], *, folder: bool = False) -> Read:
    """Reads bytes from a file of this name, by its path or that of its folder."""

    def read_there(data: bytes, place: Path) -> object:
        (place / name).write_bytes(data)
        return parser(place if folder else place / name)

    return read_there


def _source(name: str) -> Target:
    """The first file of a source is fuzzed, the others are whole."""
    first, *others = FILES[name].items()

    def read_there(data: bytes, place: Path) -> object:
        for file, content in [(first[0], data), *others]:
            (place / file).write_bytes(content)
        return read(name, place)

    return Target((first[1],), read_there)


def _archive(data: bytes, place: Path) -> object:
    (place / "edges.zip").write_bytes(data)
    return read("edge_list", place / "edges.zip")


def _packed(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _delta(data: bytes, place: Path) -> object:
    (place / "delta.zip").write_bytes(data)
    with DeltaFile(place / "delta.zip") as delta:
        return [delta.member(name) for name in delta.record.members], delta.runs(0)


def _journal(data: bytes, place: Path) -> object:
    (place / ".2024-01-01T00-00-00_0123456789ab.journal").write_bytes(data)
    return ExposureLog(place, pa.schema([("user", pa.int64())]))


def _body(kind: type[BaseModel]) -> Read:
    """A body as the server reads it, up to the table of its ids, or to the line that it answers."""

    def read_body(data: bytes, _: Path) -> object:
        try:
            body = kind.model_validate_json(data)
        except ValidationError as error:
            line = json.dumps(refused(error).answer())
            assert "\n" not in line
            return line
        return [ids_of([question.user]) for question in getattr(body, "requests", None) or ()]

    return read_body


def _override(data: bytes, _: Path) -> object:
    return parse_config(TREES["tiny"], data.decode(errors="replace").split("\0"))


def _expression(data: bytes, _: Path) -> object:
    return parse(data.decode(errors="replace"))


def _arrow() -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema([("id", pa.string())])) as out:
        out.write_table(pa.table({"id": ["a", "b"]}))
    return sink.getvalue().to_pybytes()


def _parquet() -> bytes:
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), sink)
    return sink.getvalue().to_pybytes()


def _toml() -> bytes:
    import tomli_w

    return tomli_w.dumps(TREES["shop"]).encode()


_DELTA = {"format": 1, "base": "0" * 64, "target": "1" * 64, "versions": {"a": "1"}}
_DELTA |= {"files": {"a": {"kind": "bytes", "member": 0, "size": 1}, "b": {"kind": "same"}}}
_DELTA |= {"members": {"0.new": "0" * 64}}
_MANIFEST = b'{"format": 4, "parts": {"generator": {"kind": "generator"}}, "files": {"a": "0"}}'
_ASKED = b'{"requests": [{"user": 1, "history": [1, "a"], "features": {"a": [1.5]}}], "k": 3}'

TARGETS: dict[str, Target] = {
    **{f"source {name}": _source(name) for name in FILES},
    "source in an archive": Target(
        tuple(_packed(FILES["edge_list"], kind) for kind in (0, 8)), _archive
    ),
    "config": Target((_toml(),), _written("c.toml", load_config)),
    "overrides": Target((b"trainer.epochs=3\0retriever.width=8", b"data.path=[1]"), _override),
    "manifest": Target((_MANIFEST,), _written(MANIFEST, Manifest.load, folder=True)),
    "delta": Target(
        (_packed({RECORD: json.dumps(_DELTA).encode(), "0.new": b"x", "0.runs.npy": b""}),), _delta
    ),
    "checkpoint": Target(
        (b'{"format": 2, "step": 3, "files": {"a": {"sha256": "0", "bytes": 1}}}',),
        _written(STATE, read_state, folder=True),
    ),
    "figures": Target((b'{"retrievers": {"a": {"metrics": {}}}}',), _written("a.json", read_json)),
    "examples": Target(
        (b'{"rows_of": {"per": "user"}, "train_roles": ["train"]}',),
        _written("examples.json", ExamplesSummary.load, folder=True),
    ),
    "report of ingest": Target(
        (b'{"events": {"stored": 1}, "source_fingerprint": "0"}',),
        _written("ingest.json", IngestReport.load, folder=True),
    ),
    "vocabulary": Target((_arrow(),), _written("user.arrow", Vocabulary.load)),
    "parquet": Target((_parquet(),), _written("a.parquet", read_parquet)),
    "exposures": Target((b"\x08\0\0\0\0\0\0\0abcdefgh",), _journal),
    "requests in a file": Target(
        (b'{"user": 1}\n{"history": [1e999]}\n',), _written("r", lines_of)
    ),
    "filter": Target((b"price < 2.5 and not (brand in ('a', 'b'))",), _expression),
    **{
        f"body {kind.__name__}": Target((_ASKED, b'{"items": [1], "events": [{}]}'), _body(kind))
        for kind in (Recommend, Score, Similar, Items, Events)
    },
}
