"""A bundle of several parts: each answers by its name, and no query goes to another's items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conformance import batch_from, fresh, learn, request_table, shape_of, small, training
from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import Shape, raw_requests
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.embeddings.options import QuantisationConfig
from recsys.export.bundle import PartExport, write_bundle
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.serving.bundle import Bundle
from recsys.serving.index.options import ExactConfig, FaissConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender
from recsys.serving.requests import table_of
from recsys.serving.scorer import Scorer


def trained(planted: dict[Shape, Examples], folder: Path, seed: int) -> GeneratorExport:
    """A retriever after one epoch, to be exported."""
    examples = planted["sequences"]
    with join("cpu") as group:
        model = learn(small("sasrec"), examples, folder, group, training(epochs=1), seed=seed)
    return generator(model, examples, f"seed_{seed}")


def generator(model: Any, examples: Examples, name: str) -> GeneratorExport:
    return GeneratorExport(
        model,
        examples,
        examples.candidates(),
        index=ExactConfig(),
        golden=4,
        about=About(run=name, model="sasrec"),
    )


@pytest.fixture(scope="module")
def parts(
    planted: dict[Shape, Examples], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PartExport]:
    """Two generators, trained with different seeds on the same log, and a ranker."""
    examples = planted[shape_of("dcn")]
    ranker = fresh(small("dcn"), examples)
    return {
        "first": trained(planted, tmp_path_factory.mktemp("first"), 1),
        "second": trained(planted, tmp_path_factory.mktemp("second"), 2),
        "fine": RankerExport(ranker, examples, golden=4, about=About(run="fine", model="dcn")),
    }


@pytest.fixture(scope="module")
def bundle(
    parts: dict[str, PartExport], planted_log: EventLog, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return write(tmp_path_factory.mktemp("parts") / "bundle", planted_log, **parts)


def write(folder: Path, log: EventLog, **parts: PartExport) -> Bundle:
    return write_bundle(folder, parts, Catalogue(log.folder, log.schema))


def test_every_part_answers_by_its_name(
    bundle: Bundle, parts: dict[str, PartExport], planted_log: EventLog, tmp_path: Path
) -> None:
    """As it does where it is the only part."""
    for name in ("first", "second"):
        alone = write(tmp_path / name, planted_log, generator=parts[name])
        expected = Recommender(alone).recommend([1001, 1007], k=5)
        answers = Recommender.open(bundle.folder, part=name).recommend([1001, 1007], k=5)
        assert set(answers.pop("origin")) == {name} and set(expected.pop("origin")) == {"generator"}
        pd.testing.assert_frame_equal(answers, expected)
    scorer = Scorer.open(bundle.folder)  # the only ranker
    assert scorer.part == "fine" and scorer.record.about.run == "fine"
    scored = scorer.score(pd.DataFrame({"user_id": [1001], "item_id": ["i03"]}))
    assert scored["probability"].between(0, 1).all()


def test_a_part_that_is_not_there_is_refused_by_those_that_are(
    bundle: Bundle, parts: dict[str, PartExport], planted_log: EventLog, tmp_path: Path
) -> None:
    there = r"first \(a generator\), second \(a generator\), fine \(a ranker\)"
    for opener, part, message in (
        (Recommender, None, f"has 2 parts of kind generator: name one; its parts: {there}"),
        (Recommender, "third", f"has no generator called 'third'; its parts: {there}"),
        (Recommender, "fine", f"has no generator called 'fine'; its parts: {there}"),
        (Scorer, "first", f"has no ranker called 'first'; its parts: {there}"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            opener.open(bundle.folder, part=part)
        assert "\n" not in str(caught.value)
    alone = write(tmp_path / "bundle", planted_log, first=parts["first"])
    with pytest.raises(DataError, match=r"has no ranker; .* ask it with `recsys recommend`"):
        Scorer.open(alone.folder)


def test_queries_of_one_training_are_refused_by_the_items_of_another(
    bundle: Bundle, planted: dict[Shape, Examples]
) -> None:
    """Their vectors have the same width, and mean nothing to each other."""
    first, second = (Recommender(bundle, name) for name in ("first", "second"))
    requests = first.requests_of([1001, 1002])
    queries = first.generator.queries(first.encode(requests)[0])
    first.generator.search(queries, 3)
    spaces = f"{first.generator.record.space} .* {second.generator.record.space}"
    with pytest.raises(DataError, match=f"vectors of space {spaces}"):
        second.generator.search(queries, 3)
    with pytest.raises(DataError, match="cannot be compared"):
        second.generator.index.add(first.generator.items, first.generator.record.space)


def test_a_space_is_that_of_the_trained_weights(
    bundle: Bundle, parts: dict[str, PartExport], planted_log: EventLog, tmp_path: Path
) -> None:
    """Fewer items, tables of fewer bits and another index leave it as it is."""
    first = parts["first"]
    assert isinstance(first, GeneratorExport)
    space = Recommender(bundle, "first").generator.record.space
    for name, change in {
        "fewer": {"candidates": first.candidates[:-3]},
        "quantised": {"quantisation": QuantisationConfig(dtype="int8", max_loss=1.0)},
        "faiss": {"index": FaissConfig(factory="Flat")},
    }.items():
        other = write(tmp_path / name, planted_log, generator=replace(first, **change))
        assert Recommender(other).generator.record.space == space, name
    assert Recommender(bundle, "second").generator.record.space != space


def test_parts_of_different_logs_do_not_share_a_bundle(
    parts: dict[str, PartExport], planted_log: EventLog, tmp_path: Path
) -> None:
    first = parts["first"]
    assert isinstance(first, GeneratorExport)

    class Fewer(Examples):
        def vocabulary(self, feature: str) -> Any:
            whole = super().vocabulary(feature)
            return type(whole)(whole.values[:-1])

    other = replace(first, examples=Fewer(first.examples.folder))
    with pytest.raises(DataError, match="parts first and other have different ids of item_id"):
        write(tmp_path / "bundle", planted_log, first=first, other=other)
    assert not list(tmp_path.iterdir())


def test_answers_are_arrays_and_the_frame_their_coat(
    bundle: Bundle, planted: dict[Shape, Examples]
) -> None:
    recommender = Recommender(bundle, "first")
    frame = raw_requests(planted["sequences"]).head(20)
    requests = frame[["history"]]
    answers = recommender.answer(table_of(requests), k=7)
    assert answers.places.shape == answers.scores.shape == (20, 7)
    table = recommender.recommend(requests=requests, k=7)
    places = answers.places[answers.places >= 0]
    assert recommender.generator.item_ids.take(places.numpy()).to_pylist() == list(table["item"])
    torch.testing.assert_close(
        answers.scores[answers.places >= 0], torch.tensor(table["score"].to_numpy())
    )


def test_a_history_is_encoded_once_a_request(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen, whether anything is known, and what the program reads are one encoding."""
    from feature_store.vocabulary import Vocabulary

    encoded = []
    encode = Vocabulary.encode

    def counting(self: Vocabulary, ids: Any) -> Any:
        encoded.append(len(ids))
        return encode(self, ids)

    recommender = Recommender(bundle, "first")
    requests = pd.DataFrame({"history": [["i00", "i07"], ["i14"]]})
    recommender.recommend(requests=requests)  # reads what is read once, such as titles
    monkeypatch.setattr(Vocabulary, "encode", counting)
    recommender.recommend(requests=requests, k=3)
    assert encoded == [3]


def test_the_programs_answer_what_the_models_do(
    bundle: Bundle, parts: dict[str, PartExport], planted: dict[Shape, Examples]
) -> None:
    """Each part has its own program, whatever lies beside it."""
    examples = planted["sequences"]
    for name in ("first", "second"):
        part = parts[name]
        assert isinstance(part, GeneratorExport)
        table = request_table(part.retriever, examples).slice(0, 30)
        expected = part.retriever.embed_users(batch_from(part.retriever, table)).vectors
        recommender = Recommender(bundle, name)
        requests = raw_requests(examples).head(30)
        inputs, _ = recommender.encode(table_of(requests))
        torch.testing.assert_close(recommender.generator.queries(inputs).vectors, expected)
