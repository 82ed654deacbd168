"""Programs as ONNX answer as the bundle does, or are not left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from feature_store.errors import DataError
from recsys.embeddings.options import QuantisationConfig
from recsys.formats import onnx as formats_onnx
from recsys.formats.convert import convert
from recsys.formats.onnx import open_onnx
from recsys.formats.source import GeneratorSource, source_of
from recsys.rankers import RANKERS
from recsys.retrievers import RETRIEVERS
from recsys.serving.bundle import Bundle
from recsys.serving.recommender import Recommender

# an export takes seconds: `make formats` takes all
SOME = ["als", "multi_interest"]
NAMES = list(RETRIEVERS) if os.environ.get("EVERY_RETRIEVER") else SOME


@pytest.mark.parametrize("name", NAMES)
def test_its_program_answers_in_onnxruntime(name: str, bundled: Any, tmp_path: Path) -> None:
    """Golden requests and a request alone, which `convert` asks; and another batch of histories
    that are longer and shorter than those that it was exported with."""
    source = convert(bundled(name), ["onnx"], tmp_path / "out")
    run = open_onnx(tmp_path / "out" / "user.onnx", threads=1)
    recommender = Recommender(source.bundle)
    requests = recommender.requests_of(recommender.users()[40:60])
    inputs, _ = recommender.encode(requests)
    for mine, other in zip(source.program(inputs), run(inputs), strict=True):
        torch.testing.assert_close(other, mine, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(RANKERS) if os.environ.get("EVERY_RETRIEVER") else ["dcn"])
def test_a_ranker_scores_in_onnxruntime(name: str, bundled: Any, tmp_path: Path) -> None:
    """Its golden requests, which have an item each; and lists of items."""
    source = convert(bundled(name), ["onnx"], tmp_path / "out")
    run = open_onnx(tmp_path / "out" / "ranker.onnx", threads=1)
    items = torch.tensor([[1, 5, 0], [7, 7, 2]])
    inputs = {**{name: tensor[:2] for name, tensor in source.asked.items()}, "items": items}
    (mine,), (other,) = source.program(inputs), run(inputs)
    assert mine.shape == (2, 3, 1)
    torch.testing.assert_close(other, mine, atol=1e-4, rtol=1e-4)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["inputs"][-1]["shape"] == ["requests", "items"] and about["tasks"]


@pytest.fixture(scope="module")
def small_tables(bundled: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """SASRec with tables of int8, and its conversion."""
    int8 = QuantisationConfig(dtype="int8", max_loss=1.0, max_error=10.0)
    bundle = bundled("sasrec", quantisation=int8)
    out = tmp_path_factory.mktemp("onnx") / "out"
    convert(bundle, ["onnx"], out)
    return bundle, out


def test_tables_of_int8_stay_small(small_tables: tuple[Bundle, Path]) -> None:
    _, out = small_tables
    model = onnx.load(out / "user.onnx")
    rows = [
        list(one.dims) for one in model.graph.initializer if one.data_type == onnx.TensorProto.UINT8
    ]
    assert rows == [[43, 16]]


def test_about_tells_what_is_read_and_answered(small_tables: tuple[Bundle, Path]) -> None:
    bundle, out = small_tables
    about = json.loads((out / "about.json").read_text())
    assert about["formats"] == {"onnx": ["user.onnx"]}
    (history,) = about["inputs"]
    assert history["name"] == "history" and history["shape"] == ["requests", "history_length"]
    assert (history["padding"], history["longest"], history["type"]) == (0, 8, "int64")
    assert about["outputs"] == [
        {"name": "vectors", "shape": ["requests", 1, 16]},
        {"name": "weights", "shape": ["requests", 1]},
    ]
    assert about["answers"]["space"] == bundle.manifest.parts["generator"].space
    session = onnxruntime.InferenceSession(out / "user.onnx")
    assert [one.name for one in session.get_outputs()] == ["vectors", "weights"]
    (asked,) = session.get_inputs()
    assert (asked.name, asked.shape) == ("history", history["shape"])
    told = session.get_modelmeta().custom_metadata_map
    assert told["space"] == about["answers"]["space"] and told["part"] == "generator"
    assert (out / about["vocabularies"]["files"][history["vocabulary"]]).exists()
    named = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert named == {*about["sha256"], "about.json"}


def test_nothing_of_this_machine_is_written(small_tables: tuple[Bundle, Path]) -> None:
    assert b"recsys/" not in (small_tables[1] / "user.onnx").read_bytes()


def test_what_cannot_be_translated_is_named(
    bundled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats_onnx, "translations", dict)
    with pytest.raises(
        DataError,
        match=r"the generator generator of .*, planted, cannot be written as ONNX.*linalg_solve",
    ):
        convert(bundled("als"), ["onnx"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_answers_otherwise_is_not_kept(bundled: Any) -> None:
    source = source_of(bundled("als"))
    assert isinstance(source, GeneratorSource)
    source.check(source.program, "the same program")

    def worse(inputs: Any) -> Any:
        vectors, weights = source.program(inputs)
        return -vectors, weights

    def of_batches_alone(inputs: Any) -> Any:
        vectors, weights = source.program(inputs)
        return (vectors if len(vectors) > 1 else vectors + 1), weights

    with pytest.raises(DataError, match=r"a bad one was not kept.*golden request 0"):
        source.check(worse, "a bad one")
    with pytest.raises(DataError, match="asked a single request its vectors"):
        source.check(of_batches_alone, "a bad one")


def test_equations_are_solved_where_the_first_pivot_is_zero() -> None:
    class Solve(torch.nn.Module):
        def forward(self, matrices: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return torch.linalg.solve(matrices, right)

    matrices = torch.tensor(
        [[[0.0, 2, 1], [1, 1, 0], [3, 0, 1]], [[2.0, 0, 0], [0, 4, 0], [0, 0, 5]]]
    )
    right = torch.tensor([[7.0, 3, 6], [2.0, 4, 10]])
    program = torch.onnx.export(
        torch.export.export(Solve(), (matrices, right)),
        dynamo=True,
        verbose=False,
        custom_translation_table=formats_onnx.translations(),
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (solved,) = session.run(None, {"matrices": matrices.numpy(), "right": right.numpy()})
    np.testing.assert_allclose(solved, [[1, 2, 3], [1, 1, 2]], atol=1e-5)
