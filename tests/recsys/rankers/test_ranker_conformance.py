"""Every ranker of the registry keeps the contract; a new one is tested by being registered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from conformance import (
    LAYOUTS,
    Recorder,
    batch_from,
    fresh,
    learn,
    learns_alike_in_bf16,
    predict,
    rows_of,
    small,
    training,
)
from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from planted import Shape
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group, join
from recsys.embeddings.options import PerFeature, QuantisationConfig
from recsys.embeddings.tables import Embeddings
from recsys.export.bundle import write_bundle
from recsys.export.ranker import RankerExport
from recsys.export.requests import raw_requests
from recsys.inputs import History, Id
from recsys.rankers import RANKERS, ranker_class
from recsys.rankers.base import Ranker
from recsys.serving.explainer import Explainer
from recsys.serving.files import digest
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer
from recsys.training import checkpoint

HISTORIES = ("history", "history_time")
TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Subject:
    """A ranker that has learned the planted log, and its bundle."""

    name: str
    examples: Examples
    ranker: Ranker
    recorder: Recorder
    scorer: Scorer


@pytest.fixture(scope="module")
def learned(
    planted: dict[Shape, Examples], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Subject]:
    """The subject of a name, made once."""

    @cache
    def learned(name: str) -> Subject:
        examples = planted["labelled"]
        folder, recorder = tmp_path_factory.mktemp(name), Recorder()
        with join("cpu") as group:
            ranker = learn(small(name), examples, folder / "checkpoints", group, listener=recorder)
        scorer = export(ranker, examples, folder / "bundle")
        return Subject(name, examples, ranker, recorder, scorer)

    return learned


@pytest.fixture(scope="module", params=list(RANKERS))
def subject(request: pytest.FixtureRequest, learned: Callable[[str], Subject]) -> Subject:
    return learned(request.param)


def export(ranker: Ranker, examples: Examples, folder: Path, **options: Any) -> Scorer:
    about = About(run="conformance", model="planted")
    part = RankerExport(ranker, examples, golden=8, about=about, **options)
    catalogue = Catalogue(examples.folder / "none", examples.schema)
    return Scorer(write_bundle(folder, {"ranker": part}, catalogue))


@torch.no_grad()
def logits(ranker: Ranker, table: pa.Table) -> torch.Tensor:
    return ranker.predict(batch_from(ranker, table))


def test_it_learns_what_goes_with_what(subject: Subject, group: Group) -> None:
    """The planted rule is one of pairs: neither the club nor the genre tells anything alone."""
    found = predict(subject.ranker, subject.examples, group)
    assert found.metrics["AUC"] > 0.9
    losses = [epoch["loss"] for epoch in subject.recorder.epochs]
    assert losses[-1] < 0.7 * losses[0]


def test_it_can_learn_a_few_rows_by_heart(planted: dict[Shape, Examples]) -> None:
    for name in RANKERS:
        examples = planted["labelled"]
        ranker = fresh(small(name), examples)
        names = [*(one.name for one in ranker.inputs), *ranker.judged_by]
        table = pq.read_table(examples.folder / "train.parquet").slice(0, 40)
        batch = batch_from(ranker, table.select(names))
        optimizer = torch.optim.Adam(ranker.parameters(), lr=0.05)
        for step in range(150):
            loss = ranker(batch, step)
            if loss.total / loss.weight < 0.02:
                break
            optimizer.zero_grad()
            (loss.total / loss.weight).backward()
            optimizer.step()
        else:
            pytest.fail(f"{name} loses {loss.total / loss.weight:.3f} after 150 steps")


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", list(RANKERS))
def test_it_learns_in_bf16_as_in_fp32(
    name: str, sharded: bool, planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    embeddings = PerFeature(shard_above_mb=0 if sharded else 64)
    examples = planted["labelled"]
    assert learns_alike_in_bf16(small(name), examples, tmp_path, group, embeddings=embeddings)


def test_every_batch_has_short_and_long_histories(subject: Subject) -> None:
    """In buckets, the statistics that Dice takes of a batch would not be those of all rows."""
    histories = [asked.name for asked in subject.ranker.inputs if isinstance(asked, History)]
    config = ReaderConfig(batch_size=64, bucket_batches=64)
    reader = subject.ranker.training_reader(subject.examples, config, seed=0, rank=0, world=1)
    for name in histories:
        lengths = [batch.jagged(name).lengths().double() for batch in reader]
        within = torch.stack([of_batch.std() for of_batch in lengths]).mean()
        assert within > 0.8 * torch.cat(lengths).std()


def test_scores_are_logits_of_every_task(subject: Subject) -> None:
    table = rows_of(subject.ranker, subject.examples)
    found = logits(subject.ranker, table)
    assert found.shape == (table.num_rows, len(subject.ranker.tasks))
    assert found.isfinite().all() and (found < 0).any() and (found > 0).any()


def test_a_row_is_scored_alike_in_any_company_and_order(subject: Subject) -> None:
    table = rows_of(subject.ranker, subject.examples).slice(0, 60)
    together = logits(subject.ranker, table)
    order = np.random.default_rng(0).permutation(60)
    torch.testing.assert_close(logits(subject.ranker, table.take(order)), together[order])
    for row in range(0, 60, 15):
        alone = logits(subject.ranker, table.slice(row, 1))
        torch.testing.assert_close(alone, together[row : row + 1])


LISTS = 8  # requests whose lists are asked for


def lists_of(ranker: Ranker, examples: Examples) -> tuple[pa.Table, torch.Tensor]:
    """A few requests, and M item rows of each, the unknown one among them, others twice: more than
    a history has events, as rankers may work otherwise then."""
    rows = torch.randint(0, examples.num_items, (LISTS, 10), generator=torch.Generator())
    rows[0, 0], rows[1, :2] = 0, 5
    return rows_of(ranker, examples).slice(3, LISTS), rows


@torch.no_grad()
def test_a_list_is_scored_as_its_items_are_alone_and_in_any_order(subject: Subject) -> None:
    ranker = subject.ranker
    table, items = lists_of(ranker, subject.examples)
    state = ranker.encode(ranker.inputs_of(batch_from(ranker, table)))
    lists = ranker.score(state, items)
    assert lists.shape == (*items.shape, len(ranker.tasks))
    order = torch.randperm(items.shape[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ranker.score(state, items[:, order]), lists[:, order])
    for place in range(items.shape[1]):
        alone = ranker.score(state, items[:, place : place + 1])
        torch.testing.assert_close(alone[:, 0], lists[:, place])
    own = batch_from(ranker, table).id(ranker.item).unsqueeze(1)
    torch.testing.assert_close(ranker.score(state, own).squeeze(1), logits(ranker, table))


@torch.no_grad()
def test_its_bundle_scores_lists_as_it_does(subject: Subject) -> None:
    ranker, scorer = subject.ranker, subject.scorer
    table, items = lists_of(ranker, subject.examples)
    requests = pa.Table.from_pandas(raw_rows(subject).iloc[3 : 3 + LISTS])
    expected = ranker.score(ranker.encode(ranker.inputs_of(batch_from(ranker, table))), items)
    found = scorer.logits(requests, items)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    order = torch.arange(items.shape[1]).flip(0)
    torch.testing.assert_close(scorer.logits(requests, items[:, order]), found[:, order])
    alone = scorer.logits(requests.slice(2, 1), items[2:3, 4:5])
    torch.testing.assert_close(alone[0, 0], found[2, 4], atol=1e-5, rtol=1e-5)


REPEATING = [name for name in RANKERS if "repeats" in ranker_class(name).Config.model_fields]


@torch.no_grad()
@pytest.mark.parametrize("name", REPEATING)
def test_lists_are_scored_alike_where_repeats_are_told(
    name: str, planted: dict[Shape, Examples]
) -> None:
    """Each item as alone, in any order, and in training, where a third of a list was had before."""
    examples = planted["labelled"]
    ranker = fresh(small(name, repeats=True), examples).eval()
    for parameter in ranker.parameters():  # some begin at 0
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        parameter.add_(0.1 * noise)
    table, items = lists_of(ranker, examples)
    inputs = ranker.inputs_of(batch_from(ranker, table))
    items[:, :3] = inputs["history"][:, -3:]
    state, order = ranker.encode(inputs), torch.arange(items.shape[1]).flip(0)
    lists = ranker.score(state, items)
    torch.testing.assert_close(ranker.logits(inputs, items), lists)
    torch.testing.assert_close(ranker.score(state, items[:, order]), lists[:, order])
    for place in range(items.shape[1]):
        alone = ranker.score(state, items[:, place : place + 1])
        torch.testing.assert_close(alone[:, 0], lists[:, place])


@torch.no_grad()
def test_its_bundle_gives_the_reasons_that_it_does(subject: Subject, tmp_path: Path) -> None:
    ranker, bundle = subject.ranker, subject.scorer.bundle
    if not ranker.concepts:
        with pytest.raises(DataError, match="are not made of concepts"):
            Explainer(bundle)
        return
    for column in ("expected.contributions", "expected.bias"):
        altered = expect_otherwise(subject, column, tmp_path / column)
        tell_again(altered)
        with pytest.raises(DataError, match="golden request 0 has other reasons"):
            Explainer.open(altered)
    explainer, most = Explainer.open(bundle.folder), len(ranker.concepts) - 1
    table, requests = rows_of(ranker, subject.examples), raw_rows(subject)
    batch = batch_from(ranker, table)
    whole = ranker.explain(ranker.inputs_of(batch), batch.id(ranker.item).unsqueeze(1))
    rows = explainer.explain(requests, most).groupby("request")
    assert len(rows) == len(requests)
    sums = rows["contribution"].sum().to_numpy()
    assert sums == pytest.approx(logits(ranker, table)[:, 0].numpy(), abs=1e-4)
    for request in range(0, len(requests), 20):
        reasons = rows.get_group(request)
        expected = whole.contributions[request, 0].tolist()
        by_size = sorted(range(len(expected)), key=lambda place: -abs(expected[place]))
        assert reasons["kind"].tolist() == [*["concept"] * most, "others", "bias"]
        names = [ranker.concepts[place] for place in by_size[:most]]
        assert reasons["concept"].tolist()[:most] == names
        values = [*(expected[place] for place in by_size), whole.bias[request, 0].item()]
        assert reasons["contribution"].tolist() == pytest.approx(values, abs=1e-4)
    for user, item, what in ((1001, "i99", "item: i99"), (5, "i03", "user: 5")):
        with pytest.raises(DataError, match=f"unknown {what}"):
            explainer.pair(user, item)


def test_training_computes_what_serving_does_in_one_lookup(planted: dict[Shape, Examples]) -> None:
    """A second lookup of a sharded table would be a second step of its optimizer."""
    for name in RANKERS:
        examples = planted["labelled"]
        ranker = fresh(small(name), examples)
        batch = batch_from(ranker, rows_of(ranker, examples).slice(0, 30))
        tables = [module for module in ranker.modules() if isinstance(module, Embeddings)]
        lookups = [Mock(wraps=module.forward) for module in tables]
        for module, lookup in zip(tables, lookups, strict=True):
            module.forward = lookup  # type: ignore[method-assign]
        items = batch.id(ranker.item).unsqueeze(1)
        trained = ranker.logits(ranker.inputs_of(batch), items).squeeze(1)
        assert [lookup.call_count for lookup in lookups] == [1] * len(tables)
        torch.testing.assert_close(trained, ranker.predict(batch))


def test_it_is_restored_as_it_was_saved(subject: Subject, group: Group, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "saved", subject.ranker, None, {}, group)
    other = fresh(small(subject.name), subject.examples, seed=1).eval()
    checkpoint.load_unsharded(tmp_path / "saved", other)
    table = rows_of(other, subject.examples)
    assert torch.equal(logits(other, table), logits(subject.ranker, table))


def raw_rows(subject: Subject) -> pd.DataFrame:
    table = pq.read_table(subject.examples.folder / "test.parquet").combine_chunks()
    asked = (*subject.ranker.inputs, Id(subject.ranker.item))
    return raw_requests(subject.examples, table, asked).to_pandas()


def test_its_bundle_scores_as_it_does(subject: Subject) -> None:
    requests = raw_rows(subject)
    found = subject.scorer.score(requests)
    table = rows_of(subject.ranker, subject.examples)
    expected = torch.sigmoid(logits(subject.ranker, table)[:, 0])
    torch.testing.assert_close(
        torch.tensor(found["probability"].to_numpy()), expected, atol=1e-4, rtol=1e-4
    )
    assert found.drop(columns="probability").equals(requests)


def test_known_users_need_no_more_than_their_id(subject: Subject) -> None:
    """What is known of them is the newest: of histories all of it, not what was before a row."""
    requests = raw_rows(subject)
    brief = requests[["user_id", "item_id"]]
    known = subject.scorer.bundle.users.of(pa.array(brief["user_id"])).to_pandas()
    for history in (asked.name for asked in subject.ranker.inputs if asked.name in HISTORIES):
        assert (known[history].str.len() >= requests[history].str.len()).all()
        requests[history] = known[history]
    found, whole = subject.scorer.score(brief), subject.scorer.score(requests)
    assert found["probability"].to_numpy() == pytest.approx(whole["probability"], abs=1e-5)


def test_whoever_asks_gets_an_answer_or_a_reason(subject: Subject) -> None:
    strangers = pd.DataFrame({"user_id": [None, 5], "item_id": ["i03", "nowhere"]})
    assert subject.scorer.score(strangers)["probability"].between(0, 1).all()
    assert len(subject.scorer.score(pd.DataFrame({"item_id": ["i03"]}))) == 1
    for requests, message in (
        (pd.DataFrame({"user_id": [1001]}), r"need a column 'item_id' of item ids"),
        (pd.DataFrame({"item_id": []}), "no requests"),
        (pd.DataFrame({"item_id": ["i03"], "user_id": ["x"]}), "column 'user_id'"),
        (pd.DataFrame({"item_id": ["i03"], "age": ["old"]}), "column 'age'"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            subject.scorer.score(requests)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"has no task 'purchase'; it has: label"):
        subject.scorer.score(raw_rows(subject), task="purchase")


def test_another_process_serves_without_the_training_stack(
    learned: Callable[[str], Subject], tmp_path: Path
) -> None:
    subjects, program = [learned(name) for name in RANKERS], [TESTS / "workers" / "score.py"]
    for subject in subjects:
        folder = tmp_path / subject.name
        folder.mkdir()
        raw_rows(subject).to_parquet(folder / "requests.parquet")
        program += [subject.scorer.bundle.folder, folder]
    done = subprocess.run(
        [sys.executable, *map(str, program)],
        env={**os.environ, "PYTHONPATH": str(TESTS.parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    for subject in subjects:
        here = subject.scorer.score(raw_rows(subject))["probability"]
        there = pd.read_parquet(tmp_path / subject.name / "answers.parquet")["probability"]
        assert there.to_numpy() == pytest.approx(here, abs=1e-6), subject.name


def expect_otherwise(subject: Subject, column: str, folder: Path) -> Path:
    """A copy of its bundle that expects more by a half in all that a column of the golden requests
    holds."""
    shutil.copytree(subject.scorer.bundle.folder, folder)
    path = folder / "parts/ranker/golden.parquet"
    golden = pq.read_table(path).to_pandas()
    golden[column] = [np.asarray(value) + 0.5 for value in golden[column]]
    golden.to_parquet(path)
    return folder


def tell_again(folder: Path) -> None:
    """Let the manifest of an altered bundle hold the files' own checksums."""
    said = json.loads((folder / "manifest.json").read_text())
    said["files"] = {name: digest(folder / name) for name in said["files"]}
    (folder / "manifest.json").write_text(json.dumps(said))


def test_a_bundle_that_answers_otherwise_is_refused(subject: Subject, tmp_path: Path) -> None:
    folder = expect_otherwise(subject, "expected_logit.label", tmp_path / "bundle")
    with pytest.raises(DataError, match=r"golden\.parquet was altered"):
        Scorer.open(folder)
    tell_again(folder)
    with pytest.raises(
        DataError, match=r"golden request 0 has the logit .* of label, .* do not serve"
    ):
        Scorer.open(folder)
    with pytest.raises(DataError, match=r"has no generator; its parts: ranker .* `recsys score`"):
        Recommender.open(folder)


# every ranker, and every type of the first
QUANTISED = [(name, "int8") for name in RANKERS] + [
    (next(iter(RANKERS)), dtype) for dtype in ("fp16", "int4")
]


@pytest.mark.parametrize(("subject", "dtype"), QUANTISED, indirect=["subject"])
def test_it_serves_from_quantised_tables(subject: Subject, dtype: Any, tmp_path: Path) -> None:
    """The manifest says what was done, and the answers stay near."""
    config = QuantisationConfig(dtype=dtype, max_loss=0.02, max_error=0.2)
    scorer = export(subject.ranker, subject.examples, tmp_path / "b", quantisation=config)
    record = scorer.record.quantisation
    assert record is not None
    assert record.metric == "AUC" and record.fp32 - record.quantised <= 0.02
    assert {table.dtype for table in record.tables.values()} == {dtype}
    assert record.bytes < 0.8 * record.fp32_bytes
    found, exact = (one.score(raw_rows(subject)) for one in (scorer, subject.scorer))
    gap = (found["probability"] - exact["probability"]).abs()
    assert 0 < gap.max() < {"fp16": 0.01, "int8": 0.1, "int4": 0.8}[dtype]


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "per_feature"])
@pytest.mark.parametrize("name", list(RANKERS))
def test_every_layout_learns_and_serves(
    name: str, layout: str, planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    examples, recorder = planted["labelled"], Recorder()
    repeats = {"repeats": True} if name in REPEATING and layout == "unified" else {}
    ranker = learn(
        small(name, **repeats),
        examples,
        tmp_path / "checkpoints",
        group,
        training(epochs=10),
        embeddings=LAYOUTS[layout],
        listener=recorder,
    )
    assert recorder.epochs[-1]["loss"] < 0.95 * recorder.epochs[0]["loss"]
    weights = sum(p.numel() for n, p in ranker.named_parameters() if "embeddings" in n)
    assert weights * 4 <= 1e6 * getattr(LAYOUTS[layout], "budget_mb", 0)
    scorer = export(ranker, examples, tmp_path / "bundle")
    assert_layout(scorer, layout, 3)
    if repeats:  # a third of each list was had before
        table, items = lists_of(ranker, examples)
        inputs = ranker.inputs_of(batch_from(ranker, table))
        items[:, :3] = inputs["history"][:, -3:]
        requests = raw_requests(examples, table, (*ranker.inputs, Id(ranker.item)))
        with torch.no_grad():
            expected = ranker.score(ranker.encode(inputs), items)
        torch.testing.assert_close(scorer.logits(requests, items), expected, atol=1e-4, rtol=1e-4)


def test_tables_lie_by_feature_unless_asked_otherwise(subject: Subject) -> None:
    assert_layout(subject.scorer, "per_feature", None)


def assert_layout(scorer: Scorer, layout: str, hash_version: int | None) -> None:
    told = scorer.record.embeddings
    assert told is not None
    assert (told["layout"], told["hash_version"]) == (layout, hash_version)
