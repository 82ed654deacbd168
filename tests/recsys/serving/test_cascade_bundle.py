"""A bundle of a cascade whose parts number the same ids otherwise, each in its own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from conformance import batch_from, fresh, learn, request_table, small
from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY, LABEL
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.vocabulary import Vocabulary
from planted import Shape, raw_requests, write_planted
from recsys.cascade.cascade import Cascade
from recsys.cascade.generator import Generator
from recsys.cascade.options import CascadeConfig
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.export.bundle import PartExport, write_bundle
from recsys.export.cascade import CascadeExport
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.lists.pairs import Pairs
from recsys.server.live import Live
from recsys.server.models import Recommend
from recsys.server.recommending import Options, Wanted, recommend
from recsys.serving.golden import nearly_same_list
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender

BUDGET, ABOUT = 9, About(run="planted", model="planted")


@pytest.fixture(scope="module")
def own(planted: dict[Shape, Examples]) -> Examples:
    return planted["sequences"]


@pytest.fixture(scope="module")
def others(
    planted_log: EventLog, own: Examples, tmp_path_factory: pytest.TempPathFactory
) -> dict[Shape, Examples]:
    """The same events, whose items and users are numbered from the other end."""
    base = {
        table: Vocabulary(own.vocabulary(table).values[::-1]) for table in ("item_id", "user_id")
    }
    folder = tmp_path_factory.mktemp("others")
    shapes: tuple[Shape, ...] = ("sequences", "labelled")
    return {shape: write_planted(planted_log, folder / shape, shape, base=base) for shape in shapes}


def translation(own: Examples, part: Examples, model: Any) -> Translation:
    features = [asked.feature for asked in model.inputs if asked.feature is not None]
    return Translation.between(own, part, features)


@pytest.fixture(scope="module")
def models(others: dict[Shape, Examples], tmp_path_factory: pytest.TempPathFactory) -> Any:
    from recsys.distributed import join

    with join("cpu") as group:
        folder = tmp_path_factory.mktemp("knn")
        knn = learn(small("item_knn", neighbours=100), others["sequences"], folder, group)
    return knn, fresh(small("dcn"), others["labelled"], seed=3).eval()


@pytest.fixture(scope="module")
def cascade(own: Examples, others: dict[Shape, Examples], models: Any) -> Cascade:
    knn, dcn = models
    made = Cascade(
        {"knn": Generator(knn, BUDGET, translation(own, others["sequences"], knn))},
        fine=Ranking(dcn, LABEL, translation(own, others["labelled"], dcn)),
        place_weight=0.5,
    )
    made.prepare(own.candidates())
    return made.eval()


def raw(examples: Examples, items: torch.Tensor) -> list[list[Any]]:
    decode = examples.vocabulary("item_id").decode
    return [decode(row[row != 0].numpy()).to_pylist() for row in items]


def test_parts_that_number_otherwise_find_and_rank_the_same(
    own: Examples, others: dict[Shape, Examples], models: Any, cascade: Cascade, group: Group
) -> None:
    table = request_table(cascade, own)  # type: ignore[arg-type]
    batch = batch_from(cascade, table)
    seen = Pairs.of_padded(batch.padded(HISTORY))
    stages = {stage.name: stage for stage in cascade.stages(batch, 10, seen)}
    knn = learn(small("item_knn", neighbours=100), own, own.folder, group)  # as it numbers them
    expected = knn.retrieve(batch, BUDGET, seen)
    torch.testing.assert_close(stages["knn"].scores, expected.scores)
    alike = [
        set(ours) == set(theirs)
        for ours, theirs in zip(raw(own, stages["knn"].items), raw(own, expected.ids), strict=True)
    ]
    assert np.mean(alike) > 0.8  # ties are broken by rows, which differ
    # what the ranker says of the pair of raw ids, asked in its own rows
    labelled, dcn = others["labelled"], models[1]
    users = own.vocabulary("user_id").decode(batch.id("user_id").numpy())
    rows = {"user_id": torch.from_numpy(labelled.vocabulary("user_id").encode(users).copy())}
    read = {asked.name: asked.from_batch(batch) for asked in dcn.inputs}
    read["favourites"] = translate(own, labelled, read["favourites"])
    state = dcn.encode(read | rows)
    items = translate(own, labelled, stages["fine"].items)
    same = stages["fine"].items.unsqueeze(2) == stages["candidates"].items.unsqueeze(1)
    places = same.double().argmax(2)
    p = (dcn.score(state, items).squeeze(2).double() - 0.5 * (places + 5).log()).sigmoid()
    there = stages["fine"].items != 0
    torch.testing.assert_close(stages["fine"].scores[there], p[there], rtol=1e-5, atol=1e-6)


def translate(own: Examples, part: Examples, rows: torch.Tensor) -> torch.Tensor:
    ids = own.vocabulary("item_id").decode(rows.flatten().numpy())
    return torch.from_numpy(part.vocabulary("item_id").encode(ids).copy()).view(rows.shape)


@pytest.fixture(scope="module")
def exports(
    own: Examples, others: dict[Shape, Examples], models: Any, cascade: Cascade
) -> dict[str, PartExport]:
    knn, dcn = models
    config = CascadeConfig.model_validate(
        {"generators": {"knn": {"run": "a", "budget": BUDGET}}, "fine": {"run": "b"}}
    )
    rows = others["sequences"].candidates()
    return {
        "cascade": CascadeExport(
            cascade,
            config,
            own,
            own.candidates(),
            parts={"knn": "generator_knn", "fine": "fine"},
            tasks={"fine": LABEL},
            golden=8,
            about=ABOUT,
        ),
        "generator_knn": GeneratorExport(
            knn, others["sequences"], rows, index=ExactConfig(), golden=8, about=ABOUT
        ),
        "fine": RankerExport(dcn, others["labelled"], golden=8, about=ABOUT),
    }


def test_the_bundle_keeps_the_ids_of_each_part(
    own: Examples,
    cascade: Cascade,
    exports: dict[str, PartExport],
    planted_log: EventLog,
    tmp_path: Path,
) -> None:
    catalogue = Catalogue(planted_log.folder, planted_log.schema)
    with pytest.raises(DataError, match="have different ids of item_id"):
        write_bundle(tmp_path / "refused", exports, catalogue)
    bundle = write_bundle(tmp_path / "bundle", exports, catalogue, own_ids=True)
    parts = bundle.manifest.parts
    assert parts["cascade"].vocabularies == {}
    assert set(parts["fine"].vocabularies) == {"user_id", "item_id", "favourites"}
    assert set(parts["generator_knn"].vocabularies) == {"item_id"}
    recommender = Recommender.open(bundle.folder)
    asked = pa.Table.from_pandas(raw_requests(own), preserve_index=False)
    answers = recommender.recommend_table(asked, k=5).to_pandas()
    batch = batch_from(cascade, request_table(cascade, own))  # type: ignore[arg-type]
    expected = cascade.retrieve(batch, 5, Pairs.of_padded(batch.padded(HISTORY)))
    users = own.vocabulary("user_id").decode(batch.id("user_id").numpy()).to_pylist()
    for user, ids, scores in zip(users, raw(own, expected.ids), expected.scores, strict=True):
        theirs = answers[answers["user"] == user]
        if theirs["fallback"].any():
            continue
        assert nearly_same_list(ids, scores.tolist()[: len(ids)], *listed(theirs))
    # what needs a history and has none gets what is popular
    unknown = recommender.recommend([10**6, users[0]], k=4)
    assert unknown.groupby("user")["fallback"].all().to_dict() == {10**6: True, users[0]: False}
    alone = Recommender.open(bundle.folder, part="generator_knn")
    assert len(alone.recommend([users[0]], k=4)) == 4


def test_a_server_tells_what_each_stage_left(
    exports: dict[str, PartExport], planted_log: EventLog, tmp_path: Path
) -> None:
    """As the cascade itself does, and only where it is asked to."""
    catalogue = Catalogue(planted_log.folder, planted_log.schema)
    write_bundle(tmp_path / "bundle", exports, catalogue, own_ids=True)
    live = Live.open(tmp_path / "bundle")
    asked = Recommend(history=["i00", "i07"], k=3, stages=True)
    plain = asked.model_copy(update={"stages": False})
    told, without = recommend(live, [Wanted(each, Options.of(each)) for each in (asked, plain)])
    assert isinstance(told, dict) and isinstance(without, dict) and "stages" not in without
    assert [stage["stage"] for stage in told["stages"]] == ["knn", "candidates", "fine"]
    assert [item["item"] for item in told["stages"][-1]["items"]] == [
        item["item"] for item in told["items"]
    ]
    assert {item["origin"] for item in told["items"]} == {"knn"}


def listed(answers: Any) -> tuple[list[Any], list[float]]:
    return list(answers["item"]), list(answers["score"])


def test_a_cascade_that_answers_otherwise_is_refused(
    exports: dict[str, PartExport], planted_log: EventLog, tmp_path: Path
) -> None:
    """A part of another training in the place of one."""
    _, labelled = exports["generator_knn"].examples, exports["fine"].examples
    other = RankerExport(fresh(small("dcn"), labelled, seed=4), labelled, golden=8, about=ABOUT)
    catalogue = Catalogue(planted_log.folder, planted_log.schema)
    with pytest.raises(DataError, match="golden request 0 answers"):
        write_bundle(tmp_path / "b", {**exports, "fine": other}, catalogue, own_ids=True)
    assert not (tmp_path / "b").exists()


def test_answers_of_a_cascade_may_differ_in_what_a_digit_has_cut_off() -> None:
    ids, scores = list(range(10)), [1 - i / 10 for i in range(10)]
    assert nearly_same_list(ids, scores, ids, scores) and nearly_same_list([], [], [], [])
    assert nearly_same_list(ids, scores, [*ids[:4], 99, *ids[5:]], scores)
    assert not nearly_same_list(ids, scores, [98, 99, *ids[2:]], scores)
    assert not nearly_same_list(ids, scores, ids[:9], scores[:9])
    assert not nearly_same_list(ids, scores, ids[::-1], scores)  # they are scored otherwise
    assert not nearly_same_list([1, 2], [0.5, 0.1], [2, 1], [0.5, 0.1])
