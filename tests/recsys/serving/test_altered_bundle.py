"""A bundle that somebody altered, checksums mended, is refused in a line, or answers."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from conformance import bundle_of, fresh, learn, rows_of, shape_of, small
from feature_store.catalogue import Catalogue
from feature_store.errors import ConfigError, DataError, RecsysError
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.export.bundle import write_bundle
from recsys.export.ranker import RankerExport
from recsys.serving.bundle import Bundle
from recsys.serving.files import digest
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer

PART = "parts/generator"
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def honest(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The bundle of a retriever that learns in one step."""
    examples, folder = planted[shape_of("popularity")], tmp_path_factory.mktemp("honest")
    with join("cpu") as group:
        retriever = learn(small("popularity"), examples, folder, group)
    return bundle_of(retriever, examples, planted_log, folder / "bundle").bundle.folder


@pytest.fixture
def bundle(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "bundle"))


def mend(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name] = digest(bundle / name)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def ask(bundle: Path) -> None:
    recommender = Recommender.open(bundle)
    recommender.recommend(recommender.users()[:2], k=3)


def assert_refused(bundle: Path, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        ask(bundle)
    assert "\n" not in str(caught.value) and str(bundle) in str(caught.value)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in branches:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def put(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    if value is GONE:
        del tree[path[-1]]
    else:
        tree[path[-1]] = value


GONE = object()
VALUES = [GONE, None, "", "x", -1, 0, 10**6, 2**63, 1e308, [], {}, ["x"], True, "../../outside"]


@pytest.fixture(scope="module")
def honest_ranker(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, pa.Table]:
    """The bundle of a ranker, and requests for it."""
    examples, folder = planted[shape_of("dcn")], tmp_path_factory.mktemp("honest_ranker")
    ranker, about = fresh(small("dcn"), examples), About(run="honest", model="dcn")
    part = RankerExport(ranker, examples, golden=2, about=about)
    catalogue = Catalogue(planted_log.folder, examples.schema)
    write_bundle(folder / "bundle", {"ranker": part}, catalogue)
    return folder / "bundle", rows_of(ranker, examples).slice(0, 2)


def none_ends_in_a_traceback(bundle: Path, name: str, ask: Callable[[Path], object]) -> None:
    """Some of all alterations, the same every time."""
    text = (bundle / name).read_text()
    altered = [(path, value) for path in places(json.loads(text)) for value in VALUES]
    chosen, refused = random.Random(1).sample(altered, 40), 0
    for path, value in chosen:
        tree = json.loads(text)
        put(tree, path, value)
        (bundle / name).write_text(json.dumps(tree))
        if name != "manifest.json":
            mend(bundle, name)
        try:
            ask(bundle)
        except RecsysError as error:
            assert "\n" not in str(error)
            refused += 1
    read = [path for path, _ in chosen if "embeddings" not in path]  # which is for people
    assert refused > len(read) / 2


@pytest.mark.parametrize("name", ["manifest.json", "schema.json"])
def test_no_alteration_ends_in_a_traceback(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Bundle.open(bundle).program("generator", "user.pt2")  # to read it is most of the work
    monkeypatch.setattr(Bundle, "program", lambda *asked: program)
    none_ends_in_a_traceback(bundle, name, ask)


@pytest.mark.parametrize("name", ["manifest.json", "schema.json"])
def test_no_alteration_of_a_ranker_does(
    honest_ranker: tuple[Path, pa.Table],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest, requests = honest_ranker
    bundle = Path(shutil.copytree(honest, tmp_path / "bundle"))
    program = Bundle.open(bundle).program("ranker", "ranker.pt2")
    monkeypatch.setattr(Bundle, "program", lambda *asked: program)
    Scorer.open(bundle).score_table(requests)
    none_ends_in_a_traceback(bundle, name, lambda b: Scorer.open(b).score_table(requests))


def generator(tree: Tree) -> Tree:
    part: Tree = tree["parts"]["generator"]
    return part


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.update(vocabularies={}), r"names no vocabulary of 'item_id'"),
        (
            lambda t: generator(t).update(inputs=[{"input": "History", "item": ["x"]}]),
            r"no input that this program knows: History\.item is \['x'\]",
        ),
        (
            lambda t: generator(t).update(inputs=[{"input": "History", "item": "x"}]),
            "no vocabulary of 'x'",
        ),
        (
            lambda t: generator(t).update(inputs=[{"input": "Id", "name": True}]),
            "Id.name is True",
        ),
        (lambda t: generator(t).update(width=10**6), "the manifest says"),
        (lambda t: generator(t).update(candidates=3), "the manifest says"),
        (lambda t: generator(t).update(items="rows"), "the manifest says"),
        (lambda t: t["vocabularies"].update(item_id="/etc/passwd"), "not in its manifest"),
    ],
)
def test_what_does_not_fit_its_files_is_named(
    bundle: Path, change: Callable[[Tree], object], text: str
) -> None:
    tree = json.loads((bundle / "manifest.json").read_text())
    change(tree)
    (bundle / "manifest.json").write_text(json.dumps(tree))
    assert_refused(bundle, text)


@pytest.mark.parametrize("name", ["manifest.json", "schema.json"])
def test_a_pipe_does_not_hang(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    assert_refused(bundle, f"{name} is not a plain file")


def test_a_manifest_that_is_a_link_or_nested_without_end_is_refused(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.rename(bundle.parent / "elsewhere")
    path.symlink_to(bundle.parent / "elsewhere")
    assert_refused(bundle, r"manifest\.json is or goes through a link")
    path.unlink()
    path.write_text("[" * 100_000)
    assert_refused(bundle, "is not a bundle")


FILES = ["items.npy", "item_ids.arrow", "golden.parquet", "user.pt2"]


@pytest.mark.parametrize("contents", [b"", b"garbage" * 9, None])
@pytest.mark.parametrize("name", ["users.arrow", *(f"{PART}/{name}" for name in FILES)])
def test_files_of_other_contents_are_refused(
    bundle: Path, name: str, contents: bytes | None
) -> None:
    whole = (bundle / name).read_bytes()
    (bundle / name).write_bytes(whole[: len(whole) // 2] if contents is None else contents)
    mend(bundle, name)
    assert_refused(bundle, "cannot be|is not")


def test_arrow_that_points_outside_itself_is_refused(bundle: Path) -> None:
    """Arrow reads what a file says of its own places; unchecked, that ends the process."""
    offsets = pa.py_buffer(np.array([0, 1 << 30, 2], np.int32))
    forged = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"ab"))
    with pa.OSFile(str(bundle / "users.arrow"), "wb") as sink:
        batch = pa.record_batch({"user_id": forged})
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    mend(bundle, "users.arrow")
    assert_refused(bundle, r"users\.arrow cannot be read")


def test_pickled_items_are_refused(bundle: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was_run"),)

    np.save(bundle / PART / "items.npy", np.array([Attack()], dtype=object), allow_pickle=True)
    mend(bundle, f"{PART}/items.npy")
    assert_refused(bundle, "cannot be opened")
    assert not (tmp_path / "was_run").exists()


# -- signatures --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public half, as openssl would write them."""
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, folder = Ed25519PrivateKey.generate(), tmp_path_factory.mktemp("keys")
    private, public = folder / "key.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_a_signed_bundle_is_its_makers_and_nobody_elses(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    with pytest.raises(DataError, match="is not signed: `recsys bundle sign"):
        Bundle.open(bundle, signed_by=public)
    Bundle.open(bundle).sign(private)
    Recommender.open(bundle, signed_by=public)
    Recommender.open(bundle)
    (bundle / "schema.json").write_text((bundle / "schema.json").read_text() + " ")
    with pytest.raises(DataError, match="was altered after the export"):
        Bundle.open(bundle, signed_by=public)
    mend(bundle, "schema.json")
    Bundle.open(bundle)  # checksums alone do not tell
    with pytest.raises(DataError, match=r"was not signed by the holder of .*public\.pem, or alt"):
        Bundle.open(bundle, signed_by=public)
    Bundle.open(bundle).sign(private)
    (bundle / "manifest.sig").write_bytes(b"short")
    with pytest.raises(DataError, match="was not signed by the holder"):
        Bundle.open(bundle, signed_by=public)


def test_what_is_no_key_is_named(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    with pytest.raises(ConfigError, match=r"nowhere cannot be read as a key.*openssl genpkey"):
        Bundle.open(bundle).sign(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"cannot be read as a key"):
        Bundle.open(bundle).sign(public)
    with pytest.raises(ConfigError, match=r"cannot be read as a public key"):
        Bundle.open(bundle, signed_by=private)


def test_openssl_makes_such_keys(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    Bundle.open(bundle).sign(key)
    Bundle.open(bundle, signed_by=public)
