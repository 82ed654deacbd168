"""Retrievers that read the texts of items: hand-computed scores, and items that nobody has had."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from conformance import answer, fresh, learn, shape_of, small, training
from feature_store.columns import HISTORY, HISTORY_TIME, TIME
from feature_store.errors import ConfigError
from feature_store.schema import Feature, Schema
from hf_layout import write_encoder
from planted import ITEMS, UNSOLD, Shape
from recsys.config import parse_config
from recsys.data.examples import Examples, Interactions
from recsys.distributed import Group
from recsys.retrievers.adapters import MixtureOfExperts
from recsys.retrievers.hidden_ids import HiddenIds
from recsys.retrievers.item_texts import ItemTextConfig
from recsys.retrievers.sasrec import SASRecConfig
from recsys.retrievers.text_knn import TextKNN, TextKNNConfig

NONE = torch.zeros(0, dtype=torch.int64)
PLANTED = {"attributes": ("blurb",)}


def row_of(examples: Examples, item: int) -> int:
    return int(examples.vocabulary("item_id").encode(pa.array([f"i{item:02d}"]))[0])


def test_text_knn_scores_by_the_mean_of_cosines() -> None:
    """Two words, each of two items: rows 1 and 2 have one word, row 3 both, row 4 another."""
    titles = [None, "red", "blue", "red blue", "green"]
    schema = Schema(
        user="u",
        item="i",
        features=(
            Feature(name="u", kind="id", side="user"),
            Feature(name="i", kind="id", side="item"),
            Feature(name="title", kind="text", side="item"),
        ),
    )
    table = pa.table({"title": titles})
    examples: Any = SimpleNamespace(schema=schema, num_items=5, item_attributes=lambda _: table)
    knn = TextKNN(TextKNNConfig(), examples)
    knn.fit(Interactions(NONE, NONE, NONE), examples)
    half = 0.5**0.5
    histories = torch.tensor([[1, 0, 0], [1, 2, 1], [4, 0, 0], [0, 0, 0]])
    scores = knn.encode({HISTORY: histories}).vectors[:, 0]
    expected = [[0, 1, 0, half, 0], [0, 0.5, 0.5, half, 0], [0.0] * 5, [0.0] * 5]
    torch.testing.assert_close(scores, torch.tensor(expected))


READ_TEXTS: list[tuple[str, dict[str, Any]]] = [
    ("text_knn", {**PLANTED}),
    ("unisrec", {"text": PLANTED}),
    ("sasrec", {"text": {**PLANTED, "id_dropout": 0.5}}),
    ("hstu", {"text": {**PLANTED, "adapter": "experts", "id_dropout": 0.5}}),
    ("two_tower", {"text": PLANTED, "item_features": ("item_id",), "id_dropout": 0.9}),
]


@pytest.mark.parametrize(("name", "options"), READ_TEXTS)
def test_an_item_that_nobody_has_had_is_found_by_its_text(
    name: str, options: dict[str, Any], planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    """The unsold items have the texts of the first ones on the ring, and come after what those
    come after."""
    examples = planted[shape_of(name)]
    retriever = learn(small(name, **options), examples, tmp_path, group, training(epochs=12))
    new = examples.candidates("new")
    assert len(new) == UNSOLD
    retriever.prepare(new)
    last = [row_of(examples, (item - 7) % ITEMS) for item in range(UNSOLD)]
    columns: dict[str, Any] = {HISTORY: [[row] for row in last]}
    if name == "hstu":
        columns |= {HISTORY_TIME: [[0]] * UNSOLD, TIME: [86_400] * UNSOLD}
    if name == "two_tower":
        columns |= {"club": [0] * UNSOLD, "age": [30.0] * UNSOLD}
        columns |= dict.fromkeys(("favourites", "badges"), pa.array([[0]] * UNSOLD))
    table = pa.table(columns)
    best = answer(retriever, table, 1).ids[:, 0].tolist()
    assert best == [row_of(examples, ITEMS + item) for item in range(UNSOLD)]


@pytest.mark.parametrize("name", ["sasrec", "hstu"])
def test_an_item_is_its_id_and_its_text_and_a_new_one_its_text_alone(
    name: str, planted: dict[Shape, Examples]
) -> None:
    examples = planted["sequences"]
    model = fresh(small(name, text={"dropout": 0.5}), examples).eval()
    rows = torch.arange(examples.num_items)
    ids = model.embeddings({model.item: rows})[model.item]
    texts = model.texts(rows)
    new = examples.train_events == 0
    assert new[1:].any() and not new.all()
    torch.testing.assert_close(model.look_up(rows)[~new], (ids + texts)[~new])
    torch.testing.assert_close(model.look_up(rows)[new], texts[new])


def test_texts_read_in_training_are_those_read_in_answers(planted: dict[Shape, Examples]) -> None:
    model = fresh(small("unisrec"), planted["sequences"])
    rows = torch.tensor([[3, 0, 7], [7, 1, 3]])
    torch.testing.assert_close(model.train().look_up(rows, 5), model.eval().look_up(rows))


def test_ids_are_hidden_of_new_items_and_of_a_share_of_others_in_training() -> None:
    events = torch.ones(4001, dtype=torch.int64)
    events[:11] = 0
    rows = torch.arange(4001)
    hidden = HiddenIds(events, 0.3, seed=1)
    assert torch.equal(hidden(rows), events == 0)
    share = hidden(rows, 7)
    assert share[:11].all() and abs(float(share[11:].float().mean()) - 0.3) < 0.03
    assert torch.equal(share, hidden(rows, 7)) and not torch.equal(share, hidden(rows, 8))
    assert torch.equal(HiddenIds(events, 0.0, seed=1)(rows, 7), events == 0)


def test_a_mixture_of_experts_is_the_sum_of_what_they_say_by_their_gates() -> None:
    torch.manual_seed(0)
    mixture = MixtureOfExperts(5, 3, 4)
    torch.nn.init.normal_(mixture.shifts)
    x = torch.randn(7, 5)
    gates = (x @ mixture.gates.weight.T).softmax(1)
    expected: Tensor = torch.zeros(7, 3)
    for expert in range(4):
        weight = mixture.maps.weight[3 * expert : 3 * expert + 3]
        expected = expected + gates[:, expert : expert + 1] * (
            (x - mixture.shifts[expert]) @ weight.T
        )
    torch.testing.assert_close(mixture(x), expected)


def test_attributes_that_items_do_not_have_are_told(planted: dict[Shape, Examples]) -> None:
    have = "the texts, ids and bags of items are: genre, words, title, blurb"
    for name, options, option in (
        ("text_knn", {"attributes": ("colour",)}, "retriever.attributes"),
        ("sasrec", {"text": {"attributes": ("list_price", "colour")}}, "retriever.text.attributes"),
    ):
        with pytest.raises(ConfigError, match=f"{option} names .*colour; {have}"):
            fresh(small(name, **options), planted[shape_of(name)])


def test_examples_hold_texts_where_the_model_or_a_baseline_reads_them() -> None:
    def texts(retriever: dict[str, Any], baselines: list[str]) -> bool:
        tree = {
            "name": "x",
            "data": {"source": "synthetic"},
            "retriever": retriever,
            "baselines": baselines,
        }
        return parse_config(tree).rows_of.texts

    assert not texts({"name": "sasrec"}, ["item_knn"])
    assert texts({"name": "sasrec", "text": {}}, [])
    assert texts({"name": "sasrec"}, ["item_knn", "text_knn"])
    assert texts({"name": "ada_retrieval", "backbone": {"name": "sasrec", "text": {}}}, [])
    for name in ("unisrec", "text_knn"):
        assert texts({"name": name}, [])
    assert not texts({"name": "two_tower"}, []) and texts({"name": "two_tower", "text": {}}, [])


def test_vectors_of_texts_are_saved_with_the_weights(planted: dict[Shape, Examples]) -> None:
    model = fresh(small("unisrec"), planted["sequences"])
    saved = model.state_dict()["texts.frozen.vectors"]
    lengths = np.linalg.norm(saved.numpy(), axis=1)
    assert saved.shape == (planted["sequences"].num_items, 16)
    assert lengths[0] == 0 and np.allclose(lengths[1:], 1)


def test_an_encoder_may_stand_in_for_tf_idf(planted: dict[Shape, Examples], tmp_path: Path) -> None:
    """Its vectors are the frozen ones; it reads texts that are words, by default all of them."""
    write_encoder(tmp_path / "bert", "bert", max_position_embeddings=140)
    examples = copy.copy(planted["sequences"])
    examples.folder = shutil.copytree(examples.folder, tmp_path / "examples")
    text = {"attributes": ("title",), "encoder": tmp_path / "bert"}
    config = SASRecConfig(width=8, text=ItemTextConfig(**text))
    model = fresh(config, examples)
    assert model.texts.frozen.vectors.shape == (examples.num_items, 16)
    lengths = model.texts.frozen.vectors.norm(dim=1)
    untold = [0, row_of(examples, 3)]  # have no title
    assert not lengths[untold].any() and int((lengths > 0.99).sum()) == examples.num_items - 2
    with pytest.raises(ValidationError, match="an encoder has its own"):
        ItemTextConfig(**text, dimensions=8)
