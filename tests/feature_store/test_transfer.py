"""Folders go to object storage and back whole, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from object_storage import Storage

from feature_store.errors import DataError
from feature_store.storage import Remote, calls, place
from feature_store.transfer import MANIFEST, cached, pull, push


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run leaves: nested files, hidden ones, a link, and traces of programs at work."""
    folder = tmp_path / "run"
    for name in ("config.toml", "bundles/1/manifest.json", "checkpoints/step-1/.metadata"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "bundle").symlink_to("bundles/1")
    (folder / ".lock").write_text("pid")
    (folder / ".x.partial-0123456789ab").mkdir()
    (folder / ".x.partial-0123456789ab" / "half").write_text("half")
    return folder


@pytest.fixture
def there(storage: Storage, request: pytest.FixtureRequest) -> Remote:
    at = place(f"{storage.url}/{request.node.name}")
    assert isinstance(at, Remote)
    storage.requests.clear()
    return at


def names(storage: Storage, method: str) -> list[str]:
    asked = [request for request in storage.requests if request.method == method]
    return [request.path.rpartition("/")[2] for request in asked]


def test_a_folder_comes_back_as_it_was(
    folder: Path, there: Remote, storage: Storage, tmp_path: Path
) -> None:
    assert push(folder, there)[:2] == (3, 3)
    puts = [name for name in names(storage, "PUT") if name]
    assert puts[-1] == MANIFEST and len(puts) == 4  # the manifest last
    copy = tmp_path / "copy"
    pull(there, copy)
    kept = ["bundles/1/manifest.json", "checkpoints/step-1/.metadata", "config.toml"]
    files = sorted(p for p in copy.rglob("*") if p.is_file() and "bundle" not in p.parts)
    assert sorted(path.relative_to(copy).as_posix() for path in files) == kept
    assert (copy / "bundle" / "manifest.json").read_text() == "bundles/1/manifest.json"
    assert os.readlink(copy / "bundle") == "bundles/1"
    with pytest.raises(DataError, match="copy exists: choose another folder"):
        pull(there, copy)
    pull(there, copy, replace=True)


def test_only_what_is_new_is_sent_and_nothing_is_overwritten_unasked(
    folder: Path, there: Remote, tmp_path: Path
) -> None:
    push(folder, there)
    assert push(folder, there).uploaded == 0
    (folder / "more").write_text("more")
    assert push(folder, there).uploaded == 1
    (folder / "more").write_text("other")
    with pytest.raises(DataError, match="holds something else, such as more"):
        push(folder, there)
    (folder / "config.toml").unlink()
    assert push(folder, there, replace=True).uploaded == 1
    assert not (there / "config.toml").exists()
    pull(there, tmp_path / "copy")
    assert (tmp_path / "copy" / "more").read_text() == "other"


def test_a_push_that_was_stopped_is_not_whole_and_goes_on(
    folder: Path, there: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Remote, contents: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Remote, "write_bytes", stop)
        push(folder, there)
    with pytest.raises(DataError, match=f"is no whole folder: it has no {MANIFEST}"):
        pull(there, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    push(folder, there)
    pull(there, tmp_path / "copy")
    other = place(str(there.parent / "strange"))
    (other / "x").write_bytes(b"somebody's")  # type: ignore[union-attr, operator]
    with pytest.raises(DataError, match="holds something else, such as x"):
        push(folder, other)  # type: ignore[arg-type]


def test_an_altered_or_missing_object_is_named_and_nothing_appears(
    folder: Path, there: Remote, tmp_path: Path
) -> None:
    push(folder, there)
    (there / "config.toml").write_bytes(b"config.tomL")
    with pytest.raises(DataError, match=r"config.toml is not what was pushed"):
        pull(there, tmp_path / "copy")
    (there / "config.toml").unlink()
    with pytest.raises(DataError, match=r"config.toml is missing"):
        pull(there, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "forged",
    [
        {"files": {"../x": {"bytes": 1, "sha256": ""}}},
        {"files": {"/x": {"bytes": 1, "sha256": ""}}},
        {"files": {}, "links": {"x": "/etc"}},
        {"files": {}, "links": {"x": "../.."}},
        {"files": {"x/y": {"bytes": 1, "sha256": ""}}, "links": {"x": "z"}},
        {"files": {}, "format": 2},
        {"files": {}, "surprise": 1},
    ],
)
def test_a_manifest_leads_nowhere_else(
    there: Remote, tmp_path: Path, forged: dict[str, object]
) -> None:
    (there / MANIFEST).write_bytes(json.dumps(forged).encode())
    with pytest.raises(DataError, match=r"is not to be trusted|is no manifest"):
        pull(there, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_links_out_of_the_folder_are_refused(folder: Path, there: Remote) -> None:
    (folder / "out").symlink_to("/etc")
    with pytest.raises(DataError, match="'/etc' is nothing inside it"):
        push(folder, there)


def test_the_cache_holds_what_is_there_now(
    folder: Path, there: Remote, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    seen = []
    for number in range(4):
        (folder / "config.toml").write_text(str(number))
        push(folder, there, replace=True)
        seen.append(cached(there))
        assert (seen[-1] / "config.toml").read_text() == str(number)
        storage.requests.clear()
        assert cached(there) == seen[-1]
        assert set(names(storage, "GET")) == {MANIFEST}
    assert [path.exists() for path in seen] == [False, False, True, True]


def test_transfers_that_fail_are_tried_again(
    folder: Path, there: Remote, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PAUSE", 0.001)
    push(folder, there)
    storage.failing = 4
    pull(there, tmp_path / "copy")
    assert storage.failing == 0
