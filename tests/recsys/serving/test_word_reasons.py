"""Words that a score comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from served import Served

from conformance import bundle_of, fresh, shape_of, small
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.runs.build import fit
from recsys.serving.held_sentences import held_by
from recsys.serving.item_encoder import ItemEncoder
from recsys.serving.recommender import Recommender
from recsys.serving.vector_words import Texts
from recsys.serving.word_reasons import explain_words, reader_of_words, word_shares
from recsys.text.tfidf import weighed_words
from recsys.text.tokenised import NAME, TokenisedItems


@pytest.fixture(scope="module")
def recommender(text_bundle: Path) -> Recommender:
    return Recommender.open(text_bundle)


def request(*history: str) -> pa.Table:
    return pa.table({"history": [list(history)]})


def test_the_words_of_either_side_sum_to_the_score(recommender: Recommender) -> None:
    asked = request("i03", "i10")
    reasons = explain_words(recommender, asked, "i12", most=3)
    listed = recommender.recommend(requests=asked.to_pandas(), k=40)
    score = float(listed.score[listed.item == "i12"].iloc[0])
    for side in ("history", "item"):
        told = reasons.filter(pc.equal(reasons.column("side"), side))
        assert sum(told.column("contribution").to_pylist()) == pytest.approx(score, abs=1e-4)
        assert told.column("kind").to_pylist()[-1] == "none"
        assert told.column("kind").to_pylist().count("word") == 3


def test_what_is_left_without_words_is_what_names_of_attributes_are_worth(
    recommender: Recommender,
) -> None:
    asked, generator = request("i03", "i10"), recommender.generator
    reasons = explain_words(recommender, asked, "i12", most=100).to_pylist()
    ids = recommender.bundle.vocabularies["item_id"]
    (row,) = ids.encode(pa.array(["i12"]))
    tokens, types = held_by(generator.program, "it").of(int(row))
    names = tokens[types == NAME], types[types == NAME]
    encoder = ItemEncoder.open(recommender.bundle)
    marks = encoder.tokenizer.cls, encoder.tokenizer.pad
    item = encoder.encode(TokenisedItems(*names, np.array([0, len(names[0])]), *marks))[0]
    user = generator.queries(recommender.encode(asked)[0]).vectors[0, 0]
    base = {each["side"]: each["contribution"] for each in reasons if each["kind"] == "none"}
    assert base["item"] == pytest.approx(float(user @ item), abs=1e-5)
    assert base["history"] != pytest.approx(
        float(user @ generator.items[generator.place_of("i12")])
    )


def test_words_are_those_of_values_beside_the_items_they_are_of(recommender: Recommender) -> None:
    reasons = explain_words(recommender, request("i03", "i10"), "i12", most=100)
    words = set(
        zip(*(reasons.column(name).to_pylist() for name in ("side", "item", "word")), strict=True)
    )
    assert {("item", "i12", "number"), ("item", "i12", "12")} <= words
    assert ("history", "i10", "10") in words and ("history", "i03", "10") not in words
    assert not any(word == "title" for _, _, word in words)


def test_the_program_is_as_it_was_afterwards(recommender: Recommender) -> None:
    asked = request("i03", "i10").to_pandas()
    before = recommender.recommend(requests=asked, k=5)
    sizes = [buffer.shape for buffer in recommender.generator.program.buffers()]
    explain_words(recommender, request("i03"), "i12")
    assert recommender.recommend(requests=asked, k=5).equals(before)
    assert [buffer.shape for buffer in recommender.generator.program.buffers()] == sizes


@pytest.fixture(scope="module")
def knn(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path_factory: pytest.TempPathFactory
) -> Recommender:
    """TF-IDF nearest neighbours by titles and genres."""
    examples = planted[shape_of("text_knn")]
    model = fresh(small("text_knn", attributes=("title", "genre")), examples)
    fit(model, "text_knn", examples)
    return bundle_of(model, examples, planted_log, tmp_path_factory.mktemp("knn") / "bundle")


def test_words_of_tfidf_add_up_to_the_mean_cosine(
    knn: Recommender, planted: dict[Shape, Examples]
) -> None:
    """Each adds the product of its weights in both items, over the distinct items of the history;
    ids count as words of their feature."""
    examples = planted[shape_of("text_knn")]
    features = [examples.schema[name] for name in ("title", "genre")]
    matrix, names = weighed_words(examples.item_attributes(("title", "genre")), features)
    ids = examples.vocabulary("item_id").values.to_pylist()
    weights = dict(zip(ids, matrix.toarray()[1:], strict=True))
    asked = pa.table({"history": [["i03", "i04", "i10", "nobody", "i04"]]})
    shares = word_shares(knn, asked, "i12")
    listed = knn.recommend(requests=asked.to_pandas(), k=40)
    score = float(listed.score[listed.item == "i12"].iloc[0])
    assert shares.history.score == pytest.approx(score) == pytest.approx(shares.item.score)
    assert [said.item for said in shares.history.items] == [
        "i04",
        "i10",
    ]  # newest first, i03 has no title
    for said in shares.history.items:
        products = weights[said.item] * weights["i12"] / 3
        expected = {name: added for name, added in zip(names, products, strict=True) if added}
        assert dict(said.words) == pytest.approx(expected) and "number" in expected
    (own,) = shares.item.items
    assert own.item == "i12" and [added for _, added in own.words] == sorted(
        (added for _, added in own.words), reverse=True
    )
    assert {word for word, _ in own.words} <= {"item", "number", *(f"genre=g{n}" for n in range(9))}
    told = explain_words(knn, asked, "i12", most=1)
    assert told.column("kind").to_pylist() == ["word", "others", "none"] * 2
    assert reader_of_words(knn.bundle) == knn.generator.name


@pytest.mark.parametrize("name", ["unisrec", "two_tower"])
def test_words_of_frozen_vectors_add_up_to_the_score(
    name: str, planted: dict[Shape, Examples], planted_log: EventLog, tmp_path: Path
) -> None:
    """Of a model with ids or without; an item without a text has no words."""
    examples = planted[shape_of(name)]
    model = fresh(small(name, text={"attributes": ["title", "blurb"]}), examples)
    reader = bundle_of(model.eval(), examples, planted_log, tmp_path / "bundle")
    assert reader_of_words(reader.bundle) == "generator"
    asked = request("i04", "i10", "nobody", "i04")
    shares = word_shares(reader, asked, "i12", orders=2)
    listed = reader.recommend(requests=asked.to_pandas(), k=40)
    score = float(listed.score[listed.item == "i12"].iloc[0])
    assert shares.history.score == pytest.approx(score, abs=1e-4)
    assert shares.item.score == pytest.approx(score, abs=1e-4)
    assert [said.item for said in shares.history.items] == ["i04", "i10"]
    (own,) = shares.item.items
    space = model.word_space(examples)
    (row,) = examples.vocabulary("item_id").encode(pa.array(["i12"]))
    read = space.weights[[int(row)]].nonzero()[1]
    assert {word for word, _ in own.words} == {space.words[at] for at in read}
    moved = [abs(added) for said in (*shares.history.items, own) for _, added in said.words]
    assert max(moved) > 1e-4
    # with none of its words the item is what it is without a text
    nothing = torch.zeros(1, space.directions.shape[1])
    wordless = model.described(torch.tensor([int(row)]), nothing).detach()
    user = reader.generator.queries(reader.encode(asked)[0]).vectors[0, 0]
    assert shares.item.base == pytest.approx(float(user @ wordless[0]), abs=1e-4)


def test_a_text_without_its_words_is_none_whatever_sampling_left_over() -> None:
    """Of two words, of vectors that are not quite the sum of their directions."""
    space = {
        "indptr": np.array([0, 2]),
        "indices": np.array([0, 1]),
        "data": np.array([0.6, 0.8], np.float32),
        "directions": np.array([[1.0, 0.0], [0.1, 1.0]], np.float32),
    }
    read = torch.tensor([[0.6, 0.8]])
    texts = Texts(read, pa.array(["red", "shoes"]), space)
    shoes, red = texts.words(0)
    assert (shoes.text, red.text) == ("shoes", "red")
    kept = texts.without(0, torch.stack([red.added * 0, red.added, red.added + shoes.added]))
    torch.testing.assert_close(kept[0], read[0])
    torch.testing.assert_close(kept[1], torch.nn.functional.normalize(shoes.added, dim=0))
    assert not kept[2].any()


def test_what_cannot_be_explained_is_named(recommender: Recommender, sasrec: Served) -> None:
    assert reader_of_words(sasrec.recommender.bundle) is None
    for asked, item, text in (
        (request("i03"), "nobody", "item nobody is none of the 40"),
        (request("nobody"), "i12", "no known item in its history"),
    ):
        with pytest.raises(DataError, match=text):
            explain_words(recommender, asked, item)
    with pytest.raises(DataError, match="which reads no texts"):
        explain_words(sasrec.recommender, request("i03"), "i12")
