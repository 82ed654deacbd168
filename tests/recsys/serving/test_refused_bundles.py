"""Bundles that are not what was exported: none of them is served."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from served import FALLBACK, GOLDEN, ITEMS, Served, assert_refused, forge, rewrite

from conformance import learn, small
from feature_store.errors import DataError
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.export import generator as export
from recsys.serving.bundle import Bundle
from recsys.serving.files import digest
from recsys.serving.golden import same_list
from recsys.serving.manifest import Manifest
from recsys.serving.recommender import Recommender


def test_a_damaged_bundle_is_refused(copy: Path) -> None:
    path = copy / ITEMS
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert_refused(copy, f"{ITEMS} was altered")
    path.unlink()
    assert_refused(copy, f"{ITEMS} is missing")


def test_what_is_no_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "is not a bundle")
    (copy / "manifest.json").write_text("{")
    assert_refused(copy, "is not a bundle")
    (copy / "manifest.json").write_text("[]")
    assert_refused(copy, "bundle format None, this program reads 4")


@pytest.mark.parametrize("written", [2, 3, 99])
def test_another_format_is_refused_with_the_command_that_makes_it_anew(
    copy: Path, written: int
) -> None:
    rewrite(copy, lambda manifest: manifest.update(format=written))
    assert_refused(copy, f"format {written}, this program reads 4: .* `recsys export RUN`")
    (copy.parent / "config.toml").touch()  # the bundle of a run
    assert_refused(copy, f"make it anew with `recsys export {copy.parent}`")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(colour="red"), r"manifest\.json: colour: Extra inputs"),
        (lambda m: m.pop("files"), r"manifest\.json: files: Field required"),
        (lambda m: m["parts"].update({"../x": {}}), r"parts\.\.\./x"),
        (lambda m: m["parts"]["generator"].pop("space"), r"parts\.generator\.generator\.space: "),
        (lambda m: m["parts"]["generator"].update(kind="oracle"), r"parts\.generator: .*'oracle'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_its_key(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(copy, change)
    assert_refused(copy, message)


def test_every_field_of_a_manifest_is_described() -> None:
    schema = Manifest.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, field in model["properties"].items():
            assert field.get("description"), f"{model['title']}.{name}"


@pytest.mark.parametrize("name", ["../beside", "/etc/hostname", "", ".", "parts/../../beside"])
def test_a_manifest_cannot_lead_out_of_its_bundle(copy: Path, name: str) -> None:
    (copy.parent / "beside").write_text("secret")
    rewrite(copy, lambda manifest: manifest["files"].update({name: "0" * 64}))
    assert_refused(copy, f"names '{name}', which is no file inside it")


def test_links_and_folders_are_refused_by_name(copy: Path) -> None:
    """Even those that lead to the very file."""
    (copy / ITEMS).rename(copy.parent / "items.npy")
    (copy / ITEMS).symlink_to(copy.parent / "items.npy")
    assert_refused(copy, f"{ITEMS} is or goes through a link, {ITEMS}")
    (copy / ITEMS).unlink()
    (copy.parent / "items.npy").rename(copy / ITEMS)
    Bundle.open(copy)
    (copy / "parts").rename(copy.parent / "parts")
    (copy / "parts").symlink_to(copy.parent / "parts")
    assert_refused(copy, "goes through a link, parts")
    rewrite(copy, lambda manifest: manifest.update(files={"vocabulary": "0" * 64}))
    assert_refused(copy, "vocabulary is not a plain file")


def test_no_file_is_read_that_has_no_checksum(copy: Path) -> None:
    rewrite(copy, lambda manifest: manifest["files"].pop(ITEMS))
    assert_refused(copy, f"{ITEMS} is not in its manifest")


def test_answers_that_are_not_the_training_stacks_are_refused(copy: Path) -> None:
    """Every file is whole, but they do not belong together."""
    items = np.load(copy / ITEMS)
    np.save(copy / ITEMS, items[::-1])
    forge(copy, ITEMS)
    assert_refused(copy, "golden request 0 answers")
    np.save(copy / ITEMS, items)
    forge(copy, ITEMS)
    Recommender.open(copy)
    golden = pq.read_table(copy / GOLDEN)
    column = golden.column("expected_items")
    lists = column.to_pylist()
    lists[2] = lists[2][::-1]
    place = golden.column_names.index("expected_items")
    changed = golden.set_column(place, "expected_items", pa.array(lists, column.type))
    pq.write_table(changed, copy / GOLDEN)
    forge(copy, GOLDEN)
    assert_refused(copy, "golden request 2 answers")


def test_an_export_that_answers_otherwise_never_replaces_a_good_one(
    sasrec: Served, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: digest(p) for p in copy.rglob("*") if p.is_file()}
    forward = export.UserTower.forward

    def wrong(self: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, weights = forward(self, inputs)
        return vectors.flip(-1), weights

    monkeypatch.setattr(export.UserTower, "forward", wrong)
    with pytest.raises(DataError, match="golden request"):
        sasrec.export(copy)
    assert {p.name: digest(p) for p in copy.rglob("*") if p.is_file()} == before
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_a_test_of_newcomers_alone_verifies_what_needs_no_history(
    planted: dict[Shape, Examples], sasrec: Served, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(planted["sequences"].folder, tmp_path / "examples"))
    test = pq.read_table(folder / "test.parquet")
    place = test.column_names.index("history")
    empty = pa.array([[]] * test.num_rows, test.column("history").type)
    pq.write_table(test.set_column(place, "history", empty), folder / "test.parquet/00000.parquet")
    newcomers = replace(sasrec, examples=Examples(folder))
    with pytest.raises(DataError, match="no test request has a history"):
        newcomers.export(tmp_path / "sasrec")
    with join("cpu") as group:
        newcomers.retriever = learn(small("popularity"), newcomers.examples, folder, group)
    found = newcomers.export(tmp_path / "popularity").recommend([1001], k=3)
    assert len(found) == 3


def test_lists_are_the_same_up_to_ties() -> None:
    scores = [0.9, 0.5, 0.5, 0.1]
    assert same_list([1, 2, 3, 4], scores, [1, 3, 2, 4], scores)
    assert same_list([1, 2, 3], scores[:3], [1, 2, 9], scores[:3])  # a tie with what is cut
    assert not same_list([1, 2, 3, 4], scores, [2, 1, 3, 4], scores)
    assert not same_list([1, 2, 3, 4], scores, [1, 2, 3, 4], [0.9, 0.5, 0.4, 0.1])
    assert not same_list([1, 2, 3, 4], scores, [1, 2, 3], scores[:3])
    assert not same_list([1, 2, 3, 4], scores, [1, 9, 3, 4], scores)
    assert not same_list([1, 2, 3, 4], scores, [1, 1, 2, 3], scores)


def test_the_fallback_is_verified_like_all_else(copy: Path) -> None:
    listed, name = pq.read_table(copy / FALLBACK), FALLBACK
    assert listed.column_names == ["item", "score"] and listed.num_rows == 40
    pq.write_table(listed.take(list(range(39, -1, -1))), copy / name)
    assert_refused(copy, f"{name} was altered")
    forge(copy, name)
    assert_refused(copy, "golden request 0 answers")
    pq.write_table(listed, copy / name)
    forge(copy, name)
    Recommender.open(copy)
    golden = pq.read_table(copy / GOLDEN)
    pq.write_table(golden.slice(0, golden.num_rows - 1), copy / GOLDEN)
    forge(copy, GOLDEN)
    assert_refused(copy, "its fallback and its golden requests do not belong together")


def test_a_bundle_of_before_there_was_a_fallback_says_how_it_gets_one(copy: Path) -> None:
    golden = pq.read_table(copy / GOLDEN)
    pq.write_table(golden.slice(0, golden.num_rows - 1), copy / GOLDEN)
    forge(copy, GOLDEN)
    rewrite(copy, lambda manifest: manifest["parts"]["generator"].pop("fallback"))
    old = Recommender.open(copy)
    with pytest.raises(DataError, match=r"no known item .* has no fallback yet: `recsys export`"):
        old.recommend([7])


def test_opening_without_verifying_still_checks_the_files(copy: Path) -> None:
    Recommender.open(copy, verify=False)
    (copy / GOLDEN).unlink()
    with pytest.raises(DataError, match=r"golden\.parquet is missing"):
        Bundle.open(copy)
