"""`recsys push`, `recsys pull`, and bundles that are asked by their URL."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_storage import Storage
from typer.testing import CliRunner

from feature_store.errors import RecsysError
from pipelines.cli import app
from pipelines.cli.bundles import bundle_in


def answer(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, RecsysError):
        return str(done.exception)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_folder_goes_there_and_back_and_is_found_by_its_url(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    url = f"{storage.url}/bundles/shop"
    assert answer("push", bundle, url) == f"{url}: 1 files, 2 bytes; 1 were new\n"
    assert answer("push", bundle, url).endswith("; 0 were new\n")
    assert answer("pull", url, tmp_path / "copy") == f"{tmp_path}/copy: 1 files, 2 bytes\n"
    assert "copy exists: choose another folder" in answer("pull", url, tmp_path / "copy")
    copied = bundle_in(Path(url))  # as the command line has it, of one slash
    assert copied.is_relative_to(tmp_path / "cache") and copied.name == "shop"
    assert (copied / "manifest.json").read_text() == "{}"
    assert bundle_in(bundle) == bundle


def test_what_is_no_url_is_told(tmp_path: Path) -> None:
    assert "is no URL of object storage" in answer("push", tmp_path, "bucket/folder")
