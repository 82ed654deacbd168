"""Deltas make the new bundle of the old one to the byte, or nothing at all."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from served import Served, forge

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from feature_store.vocabulary import Vocabulary
from recsys.serving.bundle import Bundle
from recsys.serving.delta.apply import apply_delta
from recsys.serving.delta.make import make_delta
from recsys.serving.delta.matching import BLOCK, match
from recsys.serving.delta.record import ByBytes, ByRows, Same
from recsys.serving.delta.runs import NEW, check_runs, merged, places, runs_of, write_runs
from recsys.serving.delta.tables import equal
from recsys.serving.files import digest
from recsys.serving.manifest import Manifest
from recsys.serving.releases import CURRENT, Releases

ITEMS, IDS = "parts/x/items.npy", "vocabulary/item_id.arrow"
USERS, CATALOGUE, PROGRAM = "users.arrow", "catalogue.parquet", "parts/x/user.pt2"
WIDTH, COUNT = 16, 2000
Tree = dict[str, Any]

SCHEMA = Schema(
    user="user_id",
    item="item_id",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="item_id", kind="id", side="item", dtype="string"),
    ),
)


def write(folder: Path, ids: list[str], titles: dict[str, str], histories: Any) -> Path:
    """A bundle whose part only the tests know; vectors go by the ids."""
    (folder / "parts" / "x").mkdir(parents=True)
    (folder / "vocabulary").mkdir()
    vectors = [np.random.default_rng(list(name.encode())).random(WIDTH, np.float32) for name in ids]
    np.save(folder / ITEMS, np.array(vectors))
    items = pa.array([name.partition("!")[0] for name in ids])
    Vocabulary(items).save(folder / IDS)
    told = pa.array([titles.get(name, f"title of {name}") for name in items.to_pylist()])
    write_parquet(pa.table({"item_id": items, "title": told}), folder / CATALOGUE)
    users = pa.table({"user_id": list(range(len(histories))), "history": histories})
    with pa.OSFile(str(folder / USERS), "wb") as sink, pa.ipc.new_file(sink, users.schema) as file:
        file.write_table(users, max_chunksize=300)
    (folder / PROGRAM).write_bytes(os.urandom(999))
    SCHEMA.save(folder / "schema.json")
    names = (ITEMS, IDS, CATALOGUE, USERS, PROGRAM, "schema.json")
    Manifest(
        created="2026-11-30T12:00:00+00:00",
        vocabularies={},
        parts={},
        versions={},
        files={name: digest(folder / name) for name in names},
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 2,000 items a few have other vectors, are new, at the end and in between, or are gone."""
    folder = tmp_path_factory.mktemp("bundles")
    ids = [f"i{place:05d}" for place in range(COUNT)]
    histories = [
        [f"i{(place * 7 + n) % COUNT:05d}" for n in range(place % 9)] for place in range(900)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bundle, "_check_vocabularies", lambda bundle: None)
        old = write(folder / "old", ids, {}, histories)
        later = [*ids[:700], "i00699x", *ids[700:1500], *ids[1510:], "j00001"]
        later[3], later[1200] = f"{later[3]}!", f"{later[1200]}!"
        changed = [*histories[:500], ["j00001"], None, *histories[502:], []]
        new = write(folder / "new", later, {"i00007": "another title"}, changed)
    return old, new


@pytest.fixture(autouse=True)
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vocabularies, and a disk that is told nothing."""
    monkeypatch.setattr(Bundle, "_check_vocabularies", lambda bundle: None)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def served(bundles: tuple[Path, Path], tmp_path: Path) -> Releases:
    releases = Releases(tmp_path / "served")
    releases.publish(bundles[0])
    return releases


@pytest.fixture(params=["delta", "delta.zip"])
def delta(request: pytest.FixtureRequest, bundles: tuple[Path, Path], tmp_path: Path) -> Path:
    """A delta as a folder, and as a file."""
    path: Path = tmp_path / request.param
    make_delta(*bundles, path)
    return path


def files(bundle: Path) -> dict[str, bytes]:
    paths = (path for path in bundle.rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in paths}


def test_a_delta_makes_the_new_bundle_to_the_byte(
    bundles: tuple[Path, Path], served: Releases, delta: Path
) -> None:
    old = served.current
    version = apply_delta(delta, served)
    assert served.versions() == [old, version] and served.current == version
    assert files(served.folder / CURRENT) == files(bundles[1])
    with pytest.raises(DataError, match="was applied already"):
        apply_delta(delta, served)
    served.rollback()
    assert files(served.folder / CURRENT) == files(bundles[0])


def test_it_holds_what_differs_and_no_more(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    record = make_delta(*bundles, tmp_path / "delta")
    kinds = {name: type(recipe) for name, recipe in record.files.items()}
    assert kinds == {
        ITEMS: ByBytes,
        PROGRAM: ByBytes,
        IDS: ByRows,
        CATALOGUE: ByRows,
        USERS: ByRows,
        "schema.json": Same,
    }

    def held(name: str) -> bytes:
        recipe = record.files[name]
        assert not isinstance(recipe, Same)
        return (tmp_path / "delta" / f"{recipe.member}.new").read_bytes()

    def rows(name: str) -> list[Tree]:
        return pa.ipc.open_file(held(name)).read_all().to_pylist()

    assert len(held(PROGRAM)) == 999
    row = 4 * WIDTH
    assert 4 * row < len(held(ITEMS)) <= 4 * row + 128  # four vectors, and what says how many
    assert rows(IDS) == [{"id": "i00699x"}, {"id": "j00001"}]
    assert [row["item_id"] for row in rows(CATALOGUE)] == ["i00007", "i00699x", "j00001"]
    assert rows(USERS) == [
        {"user_id": 500, "history": ["j00001"]},
        {"user_id": 501, "history": None},
        {"user_id": 900, "history": []},
    ]


def test_a_delta_leads_from_one_bundle_alone(
    bundles: tuple[Path, Path], delta: Path, tmp_path: Path
) -> None:
    other = Releases(tmp_path / "other")
    changed = Path(shutil.copytree(bundles[0], tmp_path / "changed"))
    manifest = json.loads((changed / "manifest.json").read_text()) | {"created": "later"}
    (changed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="serves no bundle"):
        apply_delta(delta, other)
    other.publish(changed)
    there = hashlib.sha256((changed / "manifest.json").read_bytes()).hexdigest()[:12]
    with pytest.raises(DataError, match=f"leads from the bundle [0-9a-f]{{12}}, and .* is {there}"):
        apply_delta(delta, other)
    assert len(list(other.folder.iterdir())) == 2
    with pytest.raises(DataError, match="is the same bundle"):
        make_delta(bundles[0], bundles[0], tmp_path / "none")


def refused(delta: Path, served: Releases, text: str) -> None:
    """Whatever the delta holds, the old bundle stays in service, and nothing is left of a new."""
    outside = {path for path in served.folder.parent.iterdir()}
    with pytest.raises(DataError, match=text) as caught:
        apply_delta(delta, served)
    assert "\n" not in str(caught.value)
    assert {path.name for path in served.folder.iterdir()} == {CURRENT, served.current}
    assert len(served.versions()) == 1
    assert {path for path in served.folder.parent.iterdir()} == outside


def test_an_altered_member_is_named(served: Releases, bundles: Any, tmp_path: Path) -> None:
    make_delta(*bundles, tmp_path / "delta")
    for path in sorted((tmp_path / "delta").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
        text = "delta.json" if path.name == "delta.json" else f"{path.name} was altered"
        refused(tmp_path / "delta", served, text)
        path.unlink()
        refused(tmp_path / "delta", served, f"{path.name} is missing")
        path.write_bytes(whole)
    assert apply_delta(tmp_path / "delta", served)


def test_what_is_no_delta_is_named(served: Releases, delta: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", served, "nothing")
    refused(served.folder / str(served.current), served, "delta.json is missing")
    if delta.is_file():
        whole = delta.read_bytes()
        delta.write_bytes(whole[: len(whole) // 2])
        refused(delta, served, "is not a delta")


def test_a_bundle_that_was_altered_is_no_base(served: Releases, delta: Path) -> None:
    (served.folder / CURRENT / "schema.json").write_text("{}")
    refused(delta, served, r"schema\.json does not become .* in service was altered")


def test_golden_requests_are_replayed(
    sasrec: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    new, name = Path(shutil.copytree(sasrec.bundle, tmp_path / "new")), "parts/generator/items.npy"
    np.save(new / name, -np.load(new / name))
    forge(new, name)
    make_delta(sasrec.bundle, new, tmp_path / "delta")
    releases = Releases(tmp_path / "served")
    releases.publish(sasrec.bundle)
    refused(tmp_path / "delta", releases, "golden request 0 answers")


# -- a stranger's -------------------------------------------------------------------------------


def runs_bytes(rows: list[list[int]]) -> bytes:
    contents = io.BytesIO()
    np.save(contents, np.array(rows, np.int64))
    return contents.getvalue()


@pytest.fixture
def folder(bundles: tuple[Path, Path], tmp_path: Path) -> Path:
    """A delta of which a stranger mends all checksums."""
    make_delta(*bundles, tmp_path / "delta")
    return tmp_path / "delta"


def mend(folder: Path, change: Callable[[Tree], object] = lambda tree: None) -> None:
    """Change what `delta.json` says, and make it agree with the members."""
    tree = json.loads((folder / "delta.json").read_text())
    tree["target"] = digest(folder / "manifest.json")
    change(tree)
    tree["members"] = {name: digest(folder / name) for name in tree["members"]}
    (folder / "delta.json").write_text(json.dumps(tree))


def rename(folder: Path, new: str) -> None:
    """Call the program otherwise, in the manifest and among the recipes."""
    tree = json.loads((folder / "manifest.json").read_text())
    tree["files"][new] = tree["files"].pop(PROGRAM)
    (folder / "manifest.json").write_text(json.dumps(tree))
    mend(folder, lambda tree: tree["files"].update({new: tree["files"].pop(PROGRAM)}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("../outside", "which is no file inside it"),
        ("parts/../../outside", "which is no file inside it"),
        ("/tmp/outside", "which is no file inside it"),
        ("parts\\outside", "which is no file inside it"),
        ("", "which is no file inside it"),
        ("manifest.json", "no name of a bundle's file"),
        ("manifest.sig", "no name of a bundle's file"),
        ("./parts//x/items.npy", "no name of a bundle's file"),
    ],
)
def test_names_that_climb_or_hide_are_refused(
    folder: Path, served: Releases, name: str, text: str
) -> None:
    rename(folder, name)
    refused(folder, served, text)


RUNS = [
    [[0, 1 << 62], [0, 1 << 62], [0, 1 << 62], [0, 1 << 62]],
    [[1 << 62, 5]],
    [[-2, 5]],
    [[0, -5]],
    [[0, 0]],
    [[NEW, 1000]],
    [[0, 10**9]],
    [],
]


@pytest.mark.parametrize("rows", RUNS)
@pytest.mark.parametrize("name", [ITEMS, USERS])
def test_runs_that_do_not_fit_are_refused(
    folder: Path, served: Releases, name: str, rows: list[list[int]]
) -> None:
    tree = json.loads((folder / "delta.json").read_text())
    path = folder / f"{tree['files'][name]['member']}.runs.npy"
    path.write_bytes(runs_bytes(rows))
    mend(folder)
    refused(folder, served, "do not fit together|does not become")


def test_pickles_and_links_in_a_delta_are_refused(
    folder: Path, served: Releases, tmp_path: Path
) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was_run"),)

    path = (
        folder
        / f"{json.loads((folder / 'delta.json').read_text())['files'][ITEMS]['member']}.runs.npy"
    )
    whole = path.read_bytes()
    np.save(path, np.array([Attack()], dtype=object), allow_pickle=True)
    mend(folder)
    refused(folder, served, "runs.npy cannot be read")
    assert not (tmp_path / "was_run").exists()
    (tmp_path / "elsewhere").write_bytes(whole)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    mend(folder)
    refused(folder, served, "is or goes through a link")


def test_a_manifest_of_other_contents_is_refused(folder: Path, served: Releases) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    tree["files"]["schema.json"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(tree))
    mend(folder)
    refused(folder, served, r"schema\.json does not become what its manifest\.json says")
    tree["files"].pop("schema.json")
    (folder / "manifest.json").write_text(json.dumps(tree))
    mend(folder)
    refused(folder, served, "makes other files than its manifest")
    mend(folder, lambda tree: tree.update(target="0" * 64))
    refused(folder, served, "is not that of its target")
    mend(folder, lambda tree: tree.update(code="import os"))
    refused(folder, served, "delta.json: code")
    mend(folder, lambda tree: tree.pop("code"))
    mend(folder, lambda tree: tree["files"][PROGRAM].update(size=10**18))
    refused(folder, served, "other files|are free: make room")


def test_members_of_a_file_are_not_packed(folder: Path, served: Releases, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    refused(tmp_path / "packed.zip", served, "is compressed or encrypted")


# -- how it is made -----------------------------------------------------------------------------


def test_runs_tell_old_units_from_new_ones() -> None:
    source = np.array([4, 5, 6, NEW, NEW, 0, 1, 3, NEW])
    runs = runs_of(source)
    assert runs.tolist() == [[4, 3], [NEW, 2], [0, 2], [3, 1], [NEW, 1]]
    check_runs(runs, 7, 3, 9, "x")
    for old, new, whole in ((6, 3, 9), (7, 2, 9), (7, 3, 8)):
        with pytest.raises(DataError, match="do not fit together"):
            check_runs(runs, old, new, whole, "x")
    assert places(runs, 7).tolist() == [4, 5, 6, 7, 8, 0, 1, 3, 9]
    assert runs_of(source[:0]).tolist() == [] and places(runs_of(source[:0]), 7).tolist() == []
    apart = np.array([[4, 2], [6, 1], [NEW, 1], [NEW, 1], [0, 2], [3, 1]])
    assert merged(apart).tolist() == [[4, 3], [NEW, 2], [0, 2], [3, 1]]


def test_what_moved_is_matched_wherever_it_stands(tmp_path: Path) -> None:
    """Random files, cut and put together otherwise, over few values, so that much is alike."""
    rng = np.random.default_rng(0)
    for turn in range(60):
        old = rng.integers(0, 2 if turn % 2 else 256, rng.integers(0, 3000), dtype=np.uint8)
        first, last = np.sort(rng.integers(0, len(old) + 1, 2))
        fresh = rng.integers(0, 9, rng.integers(0, 99), dtype=np.uint8)
        new = np.concatenate([old[last:], fresh, old[:first], old[first:last]])
        runs = match(old, new)
        ends = np.cumsum(runs[:, 1])
        taken = [new[e - c : e] for (s, c), e in zip(runs.tolist(), ends, strict=True) if s == NEW]
        held = b"".join(piece.tobytes() for piece in taken)
        check_runs(runs, len(old), len(held), len(new), "x")
        if turn % 2 == 0 and len(old) > 1000:
            assert len(held) <= len(fresh) + 3 * 64 + 64
        (tmp_path / "old").write_bytes(old.tobytes())
        target = tmp_path / f"new{turn}"
        made = write_runs(tmp_path / "old", runs, held, target)
        assert target.read_bytes() == new.tobytes()
        assert made == hashlib.sha256(new.tobytes()).hexdigest()


def test_values_are_the_same_to_the_last_bit() -> None:
    some = pa.array([0.0, math.nan, None, 1.0, None])
    others = pa.array([-0.0, math.nan, None, 1.0, 2.0])
    assert equal(some, others).tolist() == [False, True, True, True, False]
    lists = pa.array([["a"], [], None, ["a", None], ["a", "b"], ["a"]])
    changed = pa.array([["a"], [], [], ["a", None], ["a", "c"], ["a", "b"]])
    assert equal(lists, changed).tolist() == [True, True, False, True, False, False]


@pytest.mark.parametrize("codes", ["Flat", "SQ8"])
def test_of_an_index_the_entries_travel(tmp_path: Path, codes: str) -> None:
    """One in a hundred items has another vector: its entry leaves a list and comes to another."""
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors = rng.random((4000, 32), np.float32)
    index = faiss.index_factory(32, f"IVF32,{codes}", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "old"))
    altered = rng.choice(len(vectors), 40, replace=False)
    index.remove_ids(altered)
    index.add_with_ids(rng.random((40, 32), np.float32), altered)
    faiss.write_index(index, str(tmp_path / "new"))
    old, new = (np.fromfile(tmp_path / name, np.uint8) for name in ("old", "new"))
    runs = match(old, new)
    held = int(runs[runs[:, 0] == NEW, 1].sum())
    entry = index.sa_code_size() + 8
    assert 40 * entry < held < 40 * (entry + 4 * BLOCK) < len(new) / 8
