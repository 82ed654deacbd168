"""Ids without a vocabulary, from the examples to the weights and the bundle: as with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from conformance import (
    Recorder,
    answer,
    batch_from,
    bundle_of,
    fresh,
    learn,
    request_table,
    rows_of,
    run_config,
    small,
    training,
)
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.vocabulary import Keys, Vocabulary
from planted import Shape, raw_requests, write_planted
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.embeddings.hashing import code_rows, row_map, unknown_row
from recsys.embeddings.inspection import inspect_features, inspect_tables
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import Hashed, PerFeature, TableConfig, Unified
from recsys.embeddings.tables import Embeddings
from recsys.formats.convert import convert
from recsys.runs.asked_of_log import check_log
from recsys.training import checkpoint

KEYED = ("user_id", "club")
ROWS = {"user_id": 121, "club": 3}  # of their vocabularies
NONE = {"vocabulary": "none"}
LAYOUTS = {
    "hashed": (
        Hashed(budget_mb=0.006),
        Hashed(
            budget_mb=0.006,
            tables={name: TableConfig(**NONE, rows=ROWS[name]) for name in KEYED},  # type: ignore[arg-type]
        ),
    ),
    "unified": (
        Unified(budget_mb=0.006),
        Unified(budget_mb=0.006, tables=dict.fromkeys(KEYED, TableConfig(**NONE))),  # type: ignore[arg-type]
    ),
    "unified, sharded": (
        Unified(budget_mb=0.006, shard_above_mb=0),
        Unified(
            budget_mb=0.006,
            shard_above_mb=0,
            tables=dict.fromkeys(KEYED, TableConfig(**NONE)),  # type: ignore[arg-type]
        ),
    ),
}
MODELS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "dcn": ("labelled", {}),
    "two_tower": ("events", {"user_features": ("user_id", "club")}),
}


@pytest.fixture(scope="module")
def keyed(planted_log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> dict[Shape, Examples]:
    """The planted examples without vocabularies of users and clubs."""
    folder = tmp_path_factory.mktemp("keyed")
    shapes: tuple[Shape, ...] = ("events", "labelled")
    return {s: write_planted(planted_log, folder / s, s, keyed=KEYED) for s in shapes}


def test_codes_have_the_rows_of_their_ids() -> None:
    ids = Vocabulary(pa.array([0, 1, -5, 2**62, -(2**62)]))
    salt, rows = 17, 1009
    wanted = row_map(torch.from_numpy(ids.keys), salt, rows)
    codes = torch.tensor([0, *np.where(ids.keys == 0, -(2**63), ids.keys)])
    assert torch.equal(code_rows(codes, salt, rows, unknown_row(salt, rows)), wanted)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("dcn", "hashed"), ("dcn", "unified, sharded"), ("two_tower", "unified")],
)
def test_it_learns_what_a_vocabulary_learns(
    name: str,
    layout: str,
    planted: dict[Shape, Examples],
    keyed: dict[Shape, Examples],
    group: Group,
    tmp_path: Path,
) -> None:
    """The same losses, weights and answers, bit by bit."""
    shape, options = MODELS[name]
    losses, weights, sizes = [], [], []
    for way, examples in enumerate((planted[shape], keyed[shape])):
        heard = Recorder()
        model = learn(
            small(name, **options),
            examples,
            tmp_path / str(way),
            group,
            training(epochs=2, steps=6),
            embeddings=LAYOUTS[layout][way],
            listener=heard,
        )
        losses.append(heard.losses)
        weights.append(model.state_dict())
        sizes.append({len(b) for n, b in model.named_buffers() if ".maps." in n})
    assert losses[0] == losses[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[1][n], of) for n, of in weights[0].items())
    assert set(ROWS.values()) <= sizes[0]
    assert not set(ROWS.values()) & sizes[1]  # nothing has a row a user
    if name == "two_tower":  # and either goes on from the other's weights
        for there, here in ((0, 1), (1, 0)):
            taker = fresh(
                small(name, **options), (planted, keyed)[here][shape], LAYOUTS[layout][here], seed=3
            )
            newest = checkpoint.newest(tmp_path / str(there))
            assert newest is not None
            checkpoint.load_unsharded(newest, taker)
            assert all(torch.equal(taker.state_dict()[n], of) for n, of in weights[0].items())


def test_a_bundle_answers_users_that_nobody_has_seen(
    planted: dict[Shape, Examples],
    keyed: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path: Path,
) -> None:
    """Those who are known as the model does; the new ones by rows of their own."""
    shape, options = MODELS["two_tower"]
    examples = keyed[shape]
    model = fresh(small("two_tower", **options), examples, LAYOUTS["unified"][1])
    bundle = bundle_of(model, examples, planted_log, tmp_path / "bundle")
    requests = raw_requests(examples)  # with clubs as strings, which are kept for what is asked
    assert requests.equals(raw_requests(planted[shape]))
    model.prepare(examples.candidates())
    own = answer(model, request_table(model, examples), k=5).scores.flatten()
    asked = bundle.recommend(requests=requests, k=5)["score"].to_numpy()
    np.testing.assert_allclose(asked, own.numpy(), rtol=1e-4)
    row = requests.head(1)
    new = pd.concat([row.assign(user_id=user, club=club) for user, club in NEW])
    scores = bundle.recommend(requests=new, k=5)["score"].to_numpy().reshape(3, 5)
    assert not np.allclose(scores[0], scores[1])
    assert not np.allclose(scores[1], scores[2])
    with pytest.raises(ConfigError, match=r"user_id, club have no vocabulary, and onnx files"):
        convert(bundle.bundle, ["onnx"], tmp_path / "onnx")


NEW = [(10**15, "golf"), (-7, "golf"), (-7, "darts")]


def test_a_ranker_predicts_the_same(
    planted: dict[Shape, Examples], keyed: dict[Shape, Examples]
) -> None:
    logits: list[Tensor] = []
    for way, examples in enumerate((planted["labelled"], keyed["labelled"])):
        ranker = fresh(small("dcn"), examples, LAYOUTS["hashed"][way]).eval()
        with torch.no_grad():
            logits.append(ranker.predict(batch_from(ranker, rows_of(ranker, examples))))
    assert torch.equal(*logits)


def test_tables_are_inspected_without_their_ids(keyed: dict[Shape, Examples]) -> None:
    model = fresh(small("dcn"), keyed["labelled"], LAYOUTS["hashed"][1])
    facts = {facts.feature: facts for facts in inspect_features(model.embeddings.layout)}
    assert (facts["club"].ids, facts["club"].alike) == (None, None)
    assert facts["genre"].ids == 5
    assert all(table.dead == 0 for table in inspect_tables(model.embeddings.plain())[:2])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (PerFeature(tables={"club": TableConfig(vocabulary="none")}), "choose embeddings.layout"),
        (
            Hashed(budget_mb=1, tables={"club": TableConfig(vocabulary="none")}),
            r"say as embeddings\.tables\.club\.rows how many",
        ),
    ],
)
def test_a_layout_says_what_it_lacks(config: Any, said: str, keyed: dict[Shape, Examples]) -> None:
    with pytest.raises(ConfigError, match=said):
        make_layout([keyed["events"].spec("club")], 4, config)


@pytest.mark.parametrize("name", ["bpr", "tifu_knn", "knn_embed", "graph"])
def test_models_with_a_row_a_user_refuse(name: str, keyed: dict[Shape, Examples]) -> None:
    examples = keyed["events"]
    with pytest.raises(ConfigError, match=r"ids of user_id have no vocabulary.*set vocabulary"):
        fresh(small(name), examples).fit(examples.interactions(), examples)


@pytest.mark.parametrize("option", ["evaluation.slice_columns", "export.fallback"])
def test_nothing_is_divided_by_unlisted_ids(option: str, planted_log: EventLog) -> None:
    section, key = option.split(".")
    asked = {"slice_columns": ["club"], "fallback": {"by": "club"}}[key]
    run = run_config(small("sasrec"), embeddings=LAYOUTS["unified"][1])
    run = RunConfig.model_validate({**run.to_dict(), section: {key: asked}})
    with pytest.raises(ConfigError, match=rf"{option}.*'club' divides by.*vocabulary = 'log'"):
        check_log(run, planted_log.schema)


def test_lookups_of_unlisted_ids_have_no_map() -> None:
    spec = FeatureSpec("shop", "shop", 0, vocabulary=Keys(pa.int64(), "shop"))
    tables = {"shop": TableConfig(vocabulary="none")}
    embeddings = Embeddings(make_layout([spec], 4, Unified(budget_mb=0.001, tables=tables)))
    assert list(embeddings.buffers()) == []
    found = embeddings({"shop": torch.tensor([0, 1, -(2**63), 2**63 - 1])})["shop"]
    assert found.shape == (4, 4)
    assert len(found.unique(dim=0)) == 4
