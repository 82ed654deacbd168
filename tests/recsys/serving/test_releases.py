"""Publishing: whatever is killed, and whoever reads meanwhile, one whole bundle is in service."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from feature_store.durable import replace_link
from feature_store.errors import DataError
from recsys.serving.bundle import Bundle
from recsys.serving.files import digest
from recsys.serving.manifest import Manifest
from recsys.serving.releases import CURRENT, Releases, releases_in

STEPS = ("mkdir", "copy_file_range", "fsync", "rename", "symlink", "replace", "unlink", "rmdir")


def write(folder: Path, text: str) -> Path:
    """A bundle without parts: two files and their manifest."""
    (folder / "vocabulary").mkdir(parents=True)
    names = ("schema.json", "vocabulary/item_id.arrow")
    for name in names:
        (folder / name).write_text(text)
    Manifest(
        created="2026-11-30T12:00:00+00:00",
        vocabularies={},
        parts={},
        versions={"says": text},
        files={name: digest(folder / name) for name in names},
    ).save(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vocabularies, and a disk that is told nothing."""
    monkeypatch.setattr(Bundle, "_check_vocabularies", lambda bundle: None)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def served(tmp_path: Path) -> Releases:
    """A serving folder with one version."""
    releases = Releases(tmp_path / "served")
    releases.publish(write(tmp_path / "old", "old"))
    return releases


def said(releases: Releases) -> str:
    """What the bundle in service says, its checksums looked at."""
    opened = Bundle.open(releases.folder / CURRENT)
    text = opened.file("schema.json").read_text()
    assert text == opened.manifest.versions["says"]
    return text


def killed_at(step: int, releases: Releases, bundle: Path) -> bool:
    """Publish in a process that ends before a step, without any cleaning up; whether it did."""
    child = os.fork()
    if child == 0:
        left = step

        def dying(name: str) -> Any:
            whole = getattr(os, name)

            def step(*args: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return whole(*args, **options)

            return step

        for name in STEPS:
            setattr(os, name, dying(name))
        try:
            releases.publish(bundle, keep=1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_kill_at_any_step_leaves_a_whole_bundle_in_service(
    served: Releases, tmp_path: Path
) -> None:
    new, outcomes = write(tmp_path / "new", "new"), []
    before = tmp_path / "before"
    served.folder.rename(before)
    for step in range(200):
        shutil.rmtree(served.folder, ignore_errors=True)
        shutil.copytree(before, served.folder, symlinks=True)
        killed = killed_at(step, served, new)
        outcomes.append(said(served))
        served.publish(write(tmp_path / f"next{step}", "next"), keep=1)
        assert said(served) == "next"
        assert {path.name for path in served.folder.iterdir()} == {CURRENT, served.current}
        if not killed:
            break
    switch = outcomes.index("new")
    assert outcomes == ["old"] * switch + ["new"] * (len(outcomes) - switch)
    assert not killed and switch > 10


def test_readers_meanwhile_get_the_files_of_one_bundle(served: Releases, tmp_path: Path) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                said(served)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(25):
        served.publish(write(tmp_path / str(turn), str(turn)), keep=1)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures and said(served) == "24"
    assert len(served.versions()) <= 1 + len(readers)


def test_the_newest_stay_and_what_is_read_or_in_service(served: Releases, tmp_path: Path) -> None:
    first = served.current
    assert first is not None
    reader = Bundle.open(served.folder / CURRENT)
    for text in "abcd":
        served.publish(write(tmp_path / text, text), keep=2)
    assert len(served.versions()) == 3 and served.versions()[0] == first
    assert reader.file("schema.json").read_text() == "old"
    del reader
    served.rollback(first)
    for text in "ef":  # the first is in service while e is published, then no more
        served.publish(write(tmp_path / text, text), keep=2)
    assert first not in served.versions() and len(served.versions()) == 2
    assert [release.current for release in served.releases] == [False, True]


def test_what_a_kill_kept_from_being_removed_goes_when_it_is_published_again(
    served: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write(tmp_path / "new", "new")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Releases, "_remove_old", killed)
        served.publish(new, keep=1)
    assert len(served.versions()) == 2
    assert served.publish(new, keep=1) == served.current
    assert len(served.versions()) == 1 and said(served) == "new"


def test_roll_back_to_the_one_before_or_to_any(served: Releases, tmp_path: Path) -> None:
    old = served.current
    for text in ("new", "newer"):
        served.publish(write(tmp_path / text, text))
    assert served.rollback() == served.versions()[1] and said(served) == "new"
    assert served.rollback() == old and said(served) == "old"
    with pytest.raises(DataError, match=f"no version before {old}"):
        served.rollback()
    served.rollback(served.versions()[2])
    assert said(served) == "newer"
    with pytest.raises(DataError, match=r"no version '\.\./new'; it has: 20"):
        served.rollback("../new")


def test_what_is_not_well_is_not_put_in_service(served: Releases, tmp_path: Path) -> None:
    new, old = write(tmp_path / "new", "new"), served.current
    (new / "schema.json").write_text("other")
    with pytest.raises(DataError, match=r"schema\.json was altered"):
        served.publish(new)
    assert served.versions() == [old] and said(served) == "old"
    served.publish(write(tmp_path / "newer", "newer"))
    (served.folder / str(old) / "schema.json").write_text("other")
    with pytest.raises(DataError, match=r"schema\.json was altered"):
        served.rollback()
    assert said(served) == "newer"


def test_the_same_bundle_again_is_the_version_that_is_there(
    served: Releases, tmp_path: Path
) -> None:
    old = served.current
    served.publish(write(tmp_path / "new", "new"))
    assert served.publish(tmp_path / "old") == old == served.current
    assert len(served.versions()) == 2


def test_versions_ascend_even_where_the_clock_goes_back(served: Releases, tmp_path: Path) -> None:
    late = served.folder / f"29991231T{'0' * 12}Z-{'0' * 12}"
    (served.folder / str(served.current)).rename(late)
    replace_link(served.folder / CURRENT, late.name)
    version = served.publish(write(tmp_path / "new", "new"))
    assert served.versions() == [late.name, version]
    assert version.startswith("29991231T000000000001Z-")
    manifest = served.folder / version / "manifest.json"
    assert version.endswith(digest(manifest)[:12])


@pytest.fixture
def links(served: Releases, tmp_path: Path) -> Releases:
    """A serving folder of a stranger: a version and `current` lead out of it."""
    outside = write(tmp_path / "outside", "outside")
    shutil.rmtree(served.folder / str(served.current))
    (served.folder / f"20200101T{'0' * 12}Z-{'0' * 12}").symlink_to(outside)
    replace_link(served.folder / CURRENT, "../outside")
    return served


def test_links_that_leave_a_serving_folder_are_no_versions(links: Releases) -> None:
    assert links.versions() == [] and links.current is None
    with pytest.raises(DataError, match="serves no bundle"):
        links.rollback()
    with pytest.raises(DataError, match="holds no published bundles"):
        releases_in(links.folder)


def test_links_within_a_bundle_are_not_published(served: Releases, tmp_path: Path) -> None:
    new = write(tmp_path / "new", "new")
    (tmp_path / "secret").write_text("new")
    (new / "schema.json").unlink()
    (new / "schema.json").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="is or goes through a link"):
        served.publish(new)
    manifest = json.loads((new / "manifest.json").read_text())
    manifest["files"] = {"../secret": digest(tmp_path / "secret")}
    (new / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="which is no file inside it"):
        served.publish(new)
    assert said(served) == "old" and len(served.versions()) == 1


def test_a_link_takes_the_place_of_the_folder_that_a_copy_has_made(
    served: Releases, tmp_path: Path
) -> None:
    copy = Releases(Path(shutil.copytree(served.folder, tmp_path / "copy")))
    assert not (copy.folder / CURRENT).is_symlink()
    copy.publish(write(tmp_path / "new", "new"))
    assert said(copy) == "new" and (copy.folder / CURRENT).is_symlink()
    assert len(list(copy.folder.iterdir())) == 3
