"""A model in service, one that follows it over its index, and one that follows that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.compatible.mixed import renewed_first
from recsys.runs.compatibility import calibration_between
from recsys.serving.bundle import Bundle
from recsys.serving.generator import Generator
from recsys.serving.recommender import Recommender

Ask = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, recsys: Ask, tree_of: Callable[..., dict[str, Any]]
) -> Path:
    """Runs "old", "new" (by aligner, from "old") and "third" (by procrustes, from "new")."""
    folder = tmp_path_factory.mktemp("upgrades")

    def run(name: str, width: int, **sections: Any) -> None:
        tree = tree_of(folder, name=name, baselines=[], **sections)
        tree["retriever"]["width"] = width
        tree["trainer"]["epochs"] = 1
        tree["data"] |= {"users": 100, "items": 40}
        config = folder / f"{name}.toml"
        config.write_text(tomli_w.dumps(tree))
        status, _, errors = recsys("run", config)
        assert status == 0, errors

    run("old", 8)
    aligner = {"name": "aligner", "retrieval": 1.0}
    run("new", 12, compatible_with={"bundle": str(folder / "old"), "method": aligner})
    served = str(folder / "new" / "bundle")
    run("third", 16, compatible_with={"bundle": served, "method": "procrustes"})
    return folder


def generators(run: Path) -> dict[str, Generator]:
    bundle = Bundle.open(run / "bundle")
    return {name: Generator.open(bundle, name) for name in bundle.manifest.parts}


def test_a_new_bundle_answers_from_the_old_index(runs: Path) -> None:
    (old,) = generators(runs / "old").values()
    parts = generators(runs / "new")
    served, reembedded = parts["generator"], parts["reembedded"]
    assert served.record.space == old.record.space != reembedded.record.space
    assert (served.record.width, reembedded.record.width) == (8, 12)
    # item for item what lies in the old index, and its queries are allowed there
    assert served.item_ids == old.item_ids
    np.testing.assert_array_equal(served.items, old.items)
    recommender = Recommender(served.bundle)
    assert recommender.finder.name == "generator"
    asked, seen = recommender.asked_of(recommender.requests_of(recommender.users()[:5]))
    queries = served.queries(
        {column.name: column.from_requests(asked) for column in served.record.inputs}
    )
    scores, places = old.search(queries, 5, seen)
    answered = served.find(asked, 5, seen)
    np.testing.assert_allclose(scores, answered[0], rtol=1e-5)
    np.testing.assert_array_equal(places, answered[1])


def test_the_manifest_tells_the_versions_before(runs: Path) -> None:
    (old,) = generators(runs / "old").values()
    assert old.record.lineage is None
    second, third = (generators(runs / name)["generator"].record for name in ("new", "third"))
    assert second.lineage is not None and third.lineage is not None
    assert (second.lineage.version, second.lineage.method) == (2, "aligner")
    assert (third.lineage.version, third.lineage.method) == (3, "procrustes")
    # the third model asks the very first index: nobody has re-embedded anything
    assert second.lineage.ancestors == third.lineage.ancestors == (old.record.space,)
    assert third.space == old.record.space


def test_compatibility_as_json(runs: Path, recsys: Ask) -> None:
    status, out, _ = recsys(
        "bundle", "compatibility", runs / "old", runs / "new", "--json", "-k", "5"
    )
    assert status == 0
    told = json.loads(out)
    assert told["method"] == "aligner" and told["k"] == 5 and told["requests"] > 50
    assert set(told["recall"]) == {"old/old", "old/new", "new/old", "new/new"}
    assert [each["share"] for each in told["mixed"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # the ends of the way are the two indexes
    assert told["mixed"][0]["recall"] == pytest.approx(told["recall"]["new/old"]["value"])
    assert told["mixed"][-1]["recall"] == pytest.approx(told["recall"]["new/new"]["value"])
    assert told["mixed"][0]["old_queries"] == pytest.approx(told["recall"]["old/old"]["value"])
    assert told["mixed"][-1]["old_queries"] == pytest.approx(told["recall"]["old/new"]["value"])
    assert told["go"] == (not told["reasons"])
    # what the run itself measured, of the same requests
    status, out, _ = recsys(
        "bundle", "compatibility", runs / "old", runs / "new", "--json", "-k", "10"
    )
    own = json.loads((runs / "new" / "metrics.json").read_text())["retrievers"]
    recall = json.loads(out)["recall"]
    assert recall["new/old"]["value"] == pytest.approx(own["sasrec"]["metrics"]["Recall@10"])
    reembedded = own["sasrec_reembedded"]["metrics"]["Recall@10"]
    assert recall["new/new"]["value"] == pytest.approx(reembedded)


def test_a_bundle_over_half_re_embedded_items(runs: Path, recsys: Ask, tmp_path: Path) -> None:
    half = tmp_path / "half"
    status, out, _ = recsys("bundle", "reembed", runs / "new", "--share", "0.5", "--out", half)
    assert status == 0 and "50% of the items re-embedded" in out
    mixed, parts = Generator.open(Bundle.open(half)), generators(runs / "new")
    served, own = parts["generator"], parts["reembedded"]
    recommender = Recommender(mixed.bundle)
    asked, _ = recommender.asked_of(recommender.requests_of(recommender.users()[:5]))

    def scores(of: Generator) -> Tensor:
        inputs = {column.name: column.from_requests(asked) for column in of.record.inputs}
        return of.queries(inputs).vectors.squeeze(1) @ of.items.T

    # as `bundle compatibility` measures the same share
    renewed = renewed_first(len(mixed.items), 0.5)
    before = calibration_between(served, own)(scores(served))
    wanted = torch.where(renewed, scores(own), before)
    torch.testing.assert_close(scores(mixed), wanted, rtol=1e-4, atol=1e-5)
    assert mixed.record.space not in (served.record.space, own.record.space)
    status, _, _ = recsys("bundle", "reembed", runs / "new", "--share", "0.5", "--out", half)
    assert "is there already" in status
    status, _, _ = recsys(
        "bundle", "reembed", runs / "old", "--share", "1", "--out", tmp_path / "x"
    )
    assert "follows no bundle" in status and not (tmp_path / "x").exists()


def test_a_third_version_is_held_against_the_first(runs: Path, recsys: Ask) -> None:
    status, out, _ = recsys("bundle", "compatibility", runs / "old", runs / "third", "--json")
    told = json.loads(out)
    assert status == 0 and told["method"] == "procrustes"
    assert told["mixed"][0]["recall"] == pytest.approx(told["recall"]["new/old"]["value"])


def test_strangers_are_refused_a_go(runs: Path, recsys: Ask, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    shutil.copytree(runs / "old" / "bundle", stranger)
    manifest = stranger / "manifest.json"
    space = json.loads(manifest.read_text())["parts"]["generator"]["space"]
    manifest.write_text(manifest.read_text().replace(space, "0" * 16))
    status, out, _ = recsys("bundle", "compatibility", stranger, runs / "old")
    assert status == 0
    assert "no-go: the models' spaces have nothing to do with each other" in out
    assert "Recall@10, no map" in out


def test_the_table_ends_with_the_verdict(runs: Path, recsys: Ask) -> None:
    status, out, _ = recsys(
        "bundle", "compatibility", runs / "old" / "bundle", runs / "new", "--requests", "40"
    )
    assert status == 0 and "40 requests" in out and "old queries" in out
    assert out.strip().splitlines()[-1].startswith(("go: ", "no-go: "))


def test_a_model_against_itself_is_no_upgrade(runs: Path, recsys: Ask) -> None:
    status, _, _ = recsys("bundle", "compatibility", runs / "old", runs / "old")
    assert "same model" in status


def test_figures_and_bundle_are_made_again_when_the_old_bundle_changes(
    runs: Path, recsys: Ask
) -> None:
    from recsys.runs.parts import part_config
    from recsys.runs.steps import BUNDLE

    config = part_config("NEW", runs / "new")
    assert BUNDLE.is_done(config)
    assert config.compatible_with is not None
    other = config.compatible_with.model_copy(update={"bundle": runs / "third"})
    assert not BUNDLE.is_done(config.model_copy(update={"compatible_with": other}))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"retriever": {"name": "ease"}}, "ease is none"),
        ({"compatible_with": {"bundle": "x", "method": "rotate"}}, "'rotate' is not known"),
        ({"compatible_with": {"method": "relative"}}, "compatible_with.bundle is missing"),
        (
            {"compatible_with": {"bundle": "x", "method": {"name": "relative", "k": 3}}},
            "unknown key compatible_with.method.k",
        ),
    ],
)
def test_what_cannot_be_compatible_is_refused(
    tmp_path: Path, tree_of: Callable[..., dict[str, Any]], sections: dict[str, Any], told: str
) -> None:
    from recsys.config import parse_config

    tree = tree_of(tmp_path, compatible_with={"bundle": "x", "method": "relative"})
    with pytest.raises(ConfigError, match=told):
        parse_config({**tree, **sections})
