"""Bundle, index and recommender: what is served is what was evaluated, or nothing is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from conformance import bundle_of, learn, measure, shape_of, small, training
from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from planted import UNSOLD, Shape, raw_requests
from recsys.data.examples import Examples, Interactions
from recsys.distributed import join
from recsys.embeddings.options import QuantisationConfig
from recsys.export import generator as export
from recsys.export.bundle import versions
from recsys.export.fallback import popular_lately
from recsys.retrievers.base import VectorRetriever
from recsys.serving.bundle import Bundle
from recsys.serving.files import digest
from recsys.serving.golden import same_list
from recsys.serving.index.faiss import FaissIndex
from recsys.serving.index.options import FaissConfig, IndexConfig
from recsys.serving.manifest import Manifest
from recsys.serving.recommender import Recommender

TESTS = Path(__file__).resolve().parents[1]
ITEMS, GOLDEN = "parts/generator/items.npy", "parts/generator/golden.parquet"
FALLBACK = "parts/generator/fallback.parquet"


@dataclass
class Served:
    """A trained retriever and its bundle."""

    retriever: VectorRetriever
    examples: Examples
    log: EventLog
    recommender: Recommender
    recommended: dict[int, list[str]]  # by user, the ten that the evaluator saw

    @property
    def bundle(self) -> Path:
        return self.recommender.bundle.folder

    def export(self, folder: Path, *index: IndexConfig, **options: Any) -> Recommender:
        return bundle_of(self.retriever, self.examples, self.log, folder, *index, **options)


@pytest.fixture(scope="module")
def serve(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Served]:
    """Trains and exports a retriever by name."""

    def serve(name: str) -> Served:
        examples, folder = planted[shape_of(name)], tmp_path_factory.mktemp(name)
        with join("cpu") as group:
            retriever = learn(small(name), examples, folder, group, training(epochs=6))
            per_user = measure(retriever, examples, group).per_user
        items = examples.vocabulary(examples.schema.item)
        users = examples.vocabulary(examples.schema.user).decode(per_user["user"].to_numpy())
        lists = [items.decode(np.array(rows)) for rows in per_user["recommended"].to_pylist()]
        recommended = {
            user: found.to_pylist()[:10]
            for user, found in zip(users.to_pylist(), lists, strict=True)
        }
        served = Served(retriever, examples, planted_log, None, recommended)  # type: ignore[arg-type]
        served.recommender = served.export(folder / "bundle")
        return served

    return serve


@pytest.fixture(scope="module")
def sasrec(serve: Callable[[str], Served]) -> Served:
    return serve("sasrec")


@pytest.fixture(scope="module")
def two_tower(serve: Callable[[str], Served]) -> Served:
    return serve("two_tower")


@pytest.fixture
def copy(sasrec: Served, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(sasrec.bundle, tmp_path / "copy"))


def assert_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        Recommender.open(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def forge(bundle: Path, name: str) -> None:
    """Make the manifest agree with a changed file."""
    rewrite(bundle, lambda manifest: manifest["files"].update({name: digest(bundle / name)}))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a manifest says."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


# -- a process of its own ----------------------------------------------------------------------


def test_another_process_serves_what_was_evaluated_without_the_training_stack(
    two_tower: Served, tmp_path: Path
) -> None:
    raw_requests(two_tower.examples).to_parquet(tmp_path / "requests.parquet")
    program = [str(TESTS / "workers" / "serve.py"), str(two_tower.bundle)]
    done = subprocess.run(
        [sys.executable, *program, str(tmp_path / "requests.parquet"), str(tmp_path / "answers")],
        env={**os.environ, "PYTHONPATH": str(TESTS.parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    answers = pd.read_parquet(tmp_path / "answers").groupby("user")["item"].agg(list)
    assert set(answers.index) == set(two_tower.recommended)
    equal = [answers[user] == found for user, found in two_tower.recommended.items()]
    assert np.mean(equal) > 0.97  # scores that are all but equal may change places


# -- quantised tables --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp16", "int8", "int4"])
def test_quantised_tables_recommend_nearly_the_same(
    sasrec: Served, tmp_path: Path, dtype: Any
) -> None:
    config = QuantisationConfig(dtype=dtype, max_error=0.2, max_loss=0.05)
    bundle = sasrec.export(tmp_path / "bundle", quantisation=config)
    record, embeddings = bundle.generator.record.quantisation, bundle.generator.record.embeddings
    assert record is not None and embeddings is not None
    assert record.tables["item_id"].dtype == dtype and record.metric == "Recall@100"
    assert embeddings["tables"][0]["rows"] == 43
    expected = {"fp16": 43 * 16 * 2, "int8": 43 * (16 + 8), "int4": 43 * (8 + 4)}[dtype]
    assert record.bytes == expected and record.fp32_bytes == 43 * 16 * 4
    requests = raw_requests(sasrec.examples)
    lists = [
        one.recommend(requests=requests, k=1).set_index("user")["item"]
        for one in (bundle, sasrec.recommender)
    ]
    assert (lists[0] == lists[1]).mean() >= {"fp16": 0.95, "int8": 0.95, "int4": 0.7}[dtype]


def test_a_gate_that_lets_nothing_through_leaves_float32(sasrec: Served, tmp_path: Path) -> None:
    config = QuantisationConfig(dtype="int4", max_error=1e-9)
    bundle = sasrec.export(tmp_path / "bundle", quantisation=config)
    assert bundle.generator.record.quantisation is not None
    table = bundle.generator.record.quantisation.tables["item_id"]
    assert (table.requested, table.dtype) == ("int4", "fp32")
    assert (table.reason or "").startswith("fp16 has a relative error of 0.000")


def test_a_model_without_tables_cannot_be_quantised(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path: Path
) -> None:
    with join("cpu") as group:
        ease = learn(small("ease"), planted["sequences"], tmp_path, group)
    served = Served(ease, planted["sequences"], planted_log, None, {})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="this model has no embedding tables"):
        served.export(tmp_path / "bundle", quantisation=QuantisationConfig(dtype="int8"))
    assert not (tmp_path / "bundle").exists()


# -- bundles that are not what was exported ----------------------------------------------------


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


# -- the index ---------------------------------------------------------------------------------


def test_a_bundle_with_a_faiss_index_answers_alike(sasrec: Served, tmp_path: Path) -> None:
    recommender = sasrec.export(tmp_path / "bundle", FaissConfig())
    assert isinstance(recommender.generator.index, FaissIndex)
    assert recommender.generator.record.index.recall_at_100 >= 0.95
    requests = raw_requests(sasrec.examples)
    pd.testing.assert_frame_equal(
        recommender.recommend(requests=requests, k=5),
        sasrec.recommender.recommend(requests=requests, k=5),
        atol=1e-5,
    )


def test_an_index_that_misses_its_target_is_not_exported(sasrec: Served, tmp_path: Path) -> None:
    index = FaissConfig(factory="IVF8,Flat", recall_target=0.9)
    with pytest.raises(DataError, match=r"IVF8,Flat finds 0\.\d+ of the exact.*recall_target"):
        sasrec.export(tmp_path / "bundle", index)
    assert list(tmp_path.iterdir()) == []


# -- requests ----------------------------------------------------------------------------------


def ask(served: Served, **columns: list[Any]) -> pd.DataFrame:
    return served.recommender.recommend(requests=pd.DataFrame(columns), k=5)


def test_known_users_are_asked_by_id(sasrec: Served) -> None:
    users = sasrec.recommender.users()
    assert len(users) == 120 and users[:2] == [1001, 1002]
    found = sasrec.recommender.recommend([1007, 1002, 1007], k=3)
    assert found["user"].tolist() == [1007] * 3 + [1002] * 3 + [1007] * 3
    assert found["rank"].tolist() == [1, 2, 3] * 3
    assert found["item"][:3].tolist() == found["item"][6:].tolist()
    newest = pd.read_feather(sasrec.bundle / "users.arrow").set_index("user_id")
    by_request = ask(sasrec, history=[newest.history[1007].tolist()])
    assert by_request["item"][:3].tolist() == found["item"][:3].tolist()


def test_unknown_users_are_named(sasrec: Served) -> None:
    with pytest.raises(DataError, match="unknown users: 7, 8; pass requests"):
        sasrec.recommender.recommend([1001, 7, 8], strict=True)
    with pytest.raises(DataError, match="users must be of type int64"):
        sasrec.recommender.recommend(["someone"])


def test_unknown_items_of_a_history_are_passed_over(sasrec: Served) -> None:
    plain = ask(sasrec, history=[["i00", "i07", "i14"]])
    mixed = ask(sasrec, history=[["new", "i00", "i07", None, "newer", "i14", "newest"]])
    pd.testing.assert_frame_equal(plain, mixed)


def test_what_nothing_is_known_of_gets_the_fallback_and_the_others_their_answers(
    sasrec: Served,
) -> None:
    """The fallback is what sold most, counted here by hand from the training events."""
    histories = [["i00", "i07"], [], ["i14"], ["new"], None]
    mixed = ask(sasrec, history=histories)
    assert mixed.groupby("request")["fallback"].all().tolist() == [False, True, False, True, True]
    known = ask(sasrec, history=[histories[0], histories[2]])
    columns = ["rank", "item", "score", "title"]
    pd.testing.assert_frame_equal(
        mixed.loc[~mixed["fallback"], columns].reset_index(drop=True), known[columns]
    )
    examples = sasrec.examples
    rows = pd.Series(examples.interactions().items.numpy())
    counts = rows.value_counts().rename_axis("row").reset_index()  # all within 30 days
    best = counts.sort_values(["count", "row"], ascending=[False, True]).head(5)
    items = examples.vocabulary(examples.schema.item).decode(best["row"].to_numpy())
    for _, listed in mixed[mixed["fallback"]].groupby("request"):
        assert listed["item"].tolist() == items.to_pylist()
        assert listed["score"].tolist() == best["count"].tolist()
    by_id = sasrec.recommender.recommend([7, 1002], k=5)
    assert by_id["user"].tolist() == [7] * 5 + [1002] * 5
    assert by_id["fallback"].tolist() == [True] * 5 + [False] * 5
    assert by_id["item"].tolist()[:5] == items.to_pylist()
    with pytest.raises(DataError, match=r"request 1 has no known item .* fallback"):
        sasrec.recommender.recommend(requests=pd.DataFrame({"history": histories}), strict=True)


def test_a_model_that_needs_no_history_answers_by_itself(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path: Path
) -> None:
    with join("cpu") as group:
        popularity = learn(small("popularity"), planted["sequences"], tmp_path, group)
    recommender = bundle_of(popularity, planted["sequences"], planted_log, tmp_path / "bundle")
    assert recommender.generator.record.fallback is None
    found = recommender.recommend([7, 1002], k=3, strict=False)
    assert found["user"].tolist() == [7] * 3 + [1002] * 3 and not found["fallback"].any()


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


def test_the_fallback_counts_the_last_days_first(planted: dict[Shape, Examples]) -> None:
    """Of items 1 to 4 the third sold last month, and of the others the second most ever."""
    day = 86_400
    sold = [(1, 0), (2, 1), (2, 2), (2, 3), (3, 90), (4, 95), (4, 99), (3, 100), (3, 100)]
    events = Interactions(
        torch.zeros(len(sold)),
        torch.tensor([item for item, _ in sold]),
        torch.tensor([when * day for _, when in sold]),
    )

    class Sold(Examples):
        num_items = 6

        def interactions(self) -> Interactions:
            return events

    record, popular = popular_lately(
        Sold(planted["sequences"].folder), torch.tensor([1, 2, 3, 4, 5])
    )
    assert (record.model, record.days) == ("recent_popularity", 30)
    assert popular.ids.tolist() == [[3, 4, 2, 1, 5]]
    assert popular.scores.tolist() == [[3, 2, 0, 0, 0]]


def test_a_long_history_is_cut_for_reading_but_not_for_what_was_seen(sasrec: Served) -> None:
    """`max_length` is 8: only the last 8 are read."""
    ring = [f"i{7 * place % 40:02d}" for place in range(24)]
    short = sasrec.recommender.recommend(requests=pd.DataFrame({"history": [ring[-8:]]}), k=40)
    long = sasrec.recommender.recommend(requests=pd.DataFrame({"history": [ring]}), k=40)
    left = short[~short["item"].isin(ring)]
    assert long["item"].tolist() == left["item"].tolist()
    np.testing.assert_allclose(long["score"], left["score"], atol=1e-6)
    assert len(short) == 32 and len(long) == 16
    everything = sasrec.recommender.recommend(
        requests=pd.DataFrame({"history": [ring]}), k=100, exclude_seen=False
    )
    assert len(everything) == 40 and set(ring) <= set(everything["item"])


def test_items_that_never_sold_are_not_recommended(sasrec: Served) -> None:
    everything = sasrec.recommender.recommend([1001], k=100, exclude_seen=False)
    assert not {f"i{40 + place}" for place in range(UNSOLD)} & set(everything["item"])


def test_titles_come_from_the_catalogue(sasrec: Served) -> None:
    found = sasrec.recommender.recommend([1001, 1002], k=40).drop_duplicates("item")
    titles = found.set_index("item")["title"]
    assert titles["i05"] == "Item number 5" and titles["i03"] == ""


@pytest.mark.parametrize("kind", ["pandas", "arrow", "large lists"])
def test_requests_may_be_frames_or_tables(sasrec: Served, kind: str) -> None:
    frame = pd.DataFrame({"user_id": [3, 4], "history": [["i07"], ["i14", "i21"]]})
    table: Any = pa.Table.from_pandas(frame)
    if kind == "large lists":
        table = table.set_column(1, "history", table["history"].cast(pa.large_list(pa.string())))
    found = sasrec.recommender.recommend(requests=frame if kind == "pandas" else table, k=2)
    assert found.columns.tolist() == ["user", "rank", "item", "score", "title", "fallback"]
    assert found["user"].tolist() == [3, 3, 4, 4]
    expected = sasrec.recommender.recommend(requests=frame, k=2)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"users": [1001], "k": 0}, "k must be at least 1, not 0"),
        ({}, "give either users or requests"),
        ({"users": [1001], "requests": pd.DataFrame({"history": [["i00"]]})}, "give either"),
        ({"users": []}, "no requests"),
        ({"requests": pd.DataFrame({"history": []})}, "no requests"),
        ({"requests": pd.DataFrame({"items": [["i00"]]})}, "column 'history' .* have: items"),
        ({"requests": pd.DataFrame({"history": ["i00"]})}, "'history' must hold lists"),
        ({"requests": pd.DataFrame({"history": [["i00"], [["i07"]]]})}, "requests cannot be read"),
        ({"requests": pd.DataFrame({"history": [[["i07"]]]})}, "history"),
    ],
)
def test_questions_that_cannot_be_answered(
    sasrec: Served, question: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        sasrec.recommender.recommend(**question)
    assert "\n" not in str(caught.value)


def test_features_that_are_absent_are_unknown(two_tower: Served) -> None:
    """Left out, null and never seen are one and the same."""
    history = [["i07", "i14"]]
    plain = ask(two_tower, history=history)
    nothing = ask(
        two_tower, history=history, club=[None], age=[None], favourites=[None], badges=[[]]
    )
    unseen = ask(
        two_tower, history=history, club=["golf"], age=[np.nan], favourites=[["x"]], badges=[["z"]]
    )
    pd.testing.assert_frame_equal(plain, nothing)
    pd.testing.assert_frame_equal(plain, unseen)
    known = ask(two_tower, history=history, club=["chess"], age=[44], favourites=[["i00"]])
    assert known["score"].tolist() != plain["score"].tolist()


def test_a_dense_value_that_is_no_number_is_unknown(two_tower: Served) -> None:
    table = pa.table({"history": [["i07"]], "age": pa.array([float("nan")], pa.float32())})
    found = two_tower.recommender.recommend(requests=table, k=5)
    pd.testing.assert_frame_equal(found, ask(two_tower, history=[["i07"]]))


@pytest.mark.parametrize(
    ("column", "value"),
    [("age", "old"), ("age", [1]), ("club", ["chess"]), ("favourites", "i00"), ("badges", [["a"]])],
)
def test_features_of_the_wrong_type_are_named(two_tower: Served, column: str, value: Any) -> None:
    with pytest.raises(DataError, match=column) as caught:
        ask(two_tower, history=[["i07"]], **{column: [value]})
    assert "\n" not in str(caught.value)


def test_opening_without_verifying_still_checks_the_files(copy: Path) -> None:
    Recommender.open(copy, verify=False)
    (copy / GOLDEN).unlink()
    with pytest.raises(DataError, match=r"golden\.parquet is missing"):
        Bundle.open(copy)


def test_a_copy_of_the_folder_that_nobody_installed_exports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert versions() == {"recsys": "not installed", "torch": "not installed"}
