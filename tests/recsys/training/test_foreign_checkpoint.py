"""A checkpoint from a stranger is read or refused by name; nothing of it is run."""

from __future__ import annotations

import enum
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo

from feature_store.errors import DataError
from recsys.distributed import Group
from recsys.training import checkpoint


class Attack:
    """Leaves a file behind where a pickle is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def saved(group: Group, tmp_path: Path) -> Path:
    folder = checkpoint.folder_of(tmp_path / "theirs", 3)
    checkpoint.save(folder, torch.nn.Linear(2, 1), None, {"step": 3}, group)
    return folder


def mend(folder: Path, name: str, contents: bytes) -> None:
    """Replace a file, and make the checksums agree."""
    (folder / name).write_bytes(contents)
    state = json.loads((folder / "state.json").read_text())
    state["files"][name] = checkpoint._facts(folder / name)
    (folder / "state.json").write_text(json.dumps(state))


def held(folder: Path) -> Any:
    return pickle.loads((folder / ".metadata").read_bytes())


def assert_refused(folder: Path, text: str) -> None:
    for load in (
        lambda: checkpoint.load_unsharded(folder, torch.nn.Linear(2, 1)),
        lambda: checkpoint.load(
            folder, torch.nn.Linear(2, 1), None, Group(0, 1, torch.device("cpu"))
        ),
    ):
        with pytest.raises(DataError, match=text) as caught:
            load()
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_checkpoint_is_read_by_metadata_that_is_not_unpickled(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are those that were saved, and torch's own reading of the pickle is not used."""
    torch.manual_seed(1)
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    checkpoint.save(saved, model, None, {"step": 3}, Group(0, 1, torch.device("cpu")))
    monkeypatch.setattr(pickle, "load", None)
    checkpoint.load_unsharded(saved, other)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


class _EarlyPython(pickle.Pickler):
    """Pickles members of enums as Python 3.11.0 to 3.11.3 do."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return getattr, (type(value), value.name)
        return NotImplemented


def test_a_checkpoint_of_an_early_python_3_11_is_read(saved: Path) -> None:
    """That of Debian 12: `getattr` stands in its metadata, and is not called."""
    written = io.BytesIO()
    _EarlyPython(written).dump(held(saved))
    assert b"getattr" in written.getvalue()
    mend(saved, ".metadata", written.getvalue())
    checkpoint.load_unsharded(saved, torch.nn.Linear(2, 1))


def test_metadata_that_calls_something_is_refused_by_its_name(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    mend(saved, ".metadata", pickle.dumps(Attack(mark)))
    assert_refused(saved, r"it names posix\.mkdir, which no checkpoint needs.*nothing of it")
    honest = held_with(saved, lambda data: setattr(data, "planner_data", Attack(mark)))
    mend(saved, ".metadata", honest)
    assert_refused(saved, r"posix\.mkdir")
    assert not mark.exists()


def held_with(folder: Path, change: Callable[[Any], object]) -> bytes:
    """The pickle of honest metadata with a change."""
    data = dcp.Metadata(
        {
            name: dcp.TensorStorageMetadata(
                dcp.TensorProperties(torch.float32),
                size,
                [dcp.ChunkStorageMetadata(torch.Size([0] * len(size)), size)],
            )
            for name, size in (
                ("model.weight", torch.Size([1, 2])),
                ("model.bias", torch.Size([1])),
            )
        },
        storage_data={
            dcp.MetadataIndex(name, [0] * dims): _StorageInfo("__0_0.distcp", 0, 10)
            for name, dims in (("model.weight", 2), ("model.bias", 1))
        },
    )
    change(data)
    return pickle.dumps(data)


def point(path: str, offset: int = 0, length: int = 10, through: Any = None) -> Any:
    def change(data: Any) -> None:
        for index in data.storage_data:
            data.storage_data[index] = _StorageInfo(path, offset, length, through)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda d: d.state_dict_metadata.update({"model.weight": dcp.BytesStorageMetadata()}),
            "BytesStorageMetadata, which no checkpoint needs",  # torch would unpickle its bytes
        ),
        (point("../../secret"), "'../../secret', which is no file of the checkpoint"),
        (point("/etc/passwd"), "'/etc/passwd', which is no file"),
        (point("__0_0.distcp", -1), "10 bytes at -1 of"),
        (point("__0_0.distcp", 0, 1 << 50), "bytes at 0 of __0_0.distcp, which is not that long"),
        (point("__0_0.distcp", "0"), "'0' is not of type int"),  # type: ignore[arg-type]
        (point("__0_0.distcp", 0, 10, ["zstd"]), "through a transformation"),
        (lambda d: d.state_dict_metadata.update({"model.weight": 3}), "int stands where Tensor"),
        (lambda d: setattr(d, "storage_data", [1]), "not that of a checkpoint"),
        (lambda d: setattr(d, "state_dict_metadata", {}), "cannot be loaded"),
        (
            lambda d: setattr(d.state_dict_metadata["model.bias"], "size", torch.Size([9, 9])),
            "not that of a checkpoint",
        ),
    ],
)
def test_metadata_that_says_what_cannot_be_is_refused(
    saved: Path, change: Callable[[Any], object], text: str
) -> None:
    mend(saved, ".metadata", held_with(saved, change))
    assert_refused(saved, text)


@pytest.mark.parametrize("contents", [b"", b"\x80", b"(" * 9, b"garbage", b"\x80\x04N."])
def test_what_is_no_pickle_is_refused(saved: Path, contents: bytes) -> None:
    mend(saved, ".metadata", contents)
    assert_refused(saved, "not that of a checkpoint")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 9),
        ("world", "1"),
        ("files", []),
        ("files", {"../outside": {"bytes": 1, "sha256": ""}}),
        ("files", {".metadata": {"bytes": "1", "sha256": ""}}),
        ("model", None),
        ("model", {}),
        ("reader", {"epoch": "x"}),
        ("progress", {}),
        ("best_step", "../../elsewhere"),
    ],
)
def test_a_state_of_other_types_is_refused(saved: Path, key: str, value: Any) -> None:
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps({**state, key: value}))
    assert_refused(saved, key)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000])
def test_a_state_that_is_no_tree_is_refused(saved: Path, text: str) -> None:
    (saved / "state.json").write_text(text)
    assert_refused(saved, "checkpoint")


def test_a_link_is_no_file_of_a_checkpoint(saved: Path, tmp_path: Path) -> None:
    (saved / "__0_0.distcp").rename(tmp_path / "outside")
    (saved / "__0_0.distcp").symlink_to(tmp_path / "outside")
    assert_refused(saved, "__0_0.distcp is missing, or no plain file")
