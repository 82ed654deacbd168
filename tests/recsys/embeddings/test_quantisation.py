"""Quantised tables: FBGEMM's own bytes, bounded errors, and a gate that falls back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from feature_store.errors import ConfigError
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import PerFeature, QuantisationConfig
from recsys.embeddings.plain import PlainEmbeddings
from recsys.embeddings.quantisation import ByteTable, HalfTable, NibbleTable, quantise

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 17))


def draw(rows: int, width: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_bytes_are_those_of_fbgemm() -> None:
    weights = draw(50, 8)
    packed = torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(weights)
    table = ByteTable(weights)
    assert torch.equal(table.codes, packed[:, :8])
    assert torch.equal(table.scales.view(torch.uint8), packed[:, 8:])
    expected = torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat(packed)
    torch.testing.assert_close(table(torch.arange(50)), expected)


def test_the_documented_example_of_a_row() -> None:
    """[10, 20]: codes 0 and 255, scale 10 / 255, offset 10."""
    table = ByteTable(torch.tensor([[10.0, 20.0]]))
    assert table.codes.tolist() == [[0, 255]]
    assert table.scales[0].tolist() == pytest.approx([10 / 255, 10])


def test_four_bits_are_read_as_torch_unpacks_them() -> None:
    weights = draw(30, 8, seed=1)
    packed = torch.ops.quantized.embedding_bag_4bit_prepack(weights, True)
    expected = torch.ops.quantized.embedding_bag_4bit_unpack(packed)
    table = NibbleTable(weights)
    torch.testing.assert_close(table(torch.arange(30)), expected)
    assert table.bytes == 30 * (8 // 2 + 4)
    plain = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(weights, 4)
    searched = (table(torch.arange(30)) - weights).square().mean()
    unsearched = torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(plain, 4) - weights
    assert searched < unsearched.square().mean()


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.integers(0, 100), st.sampled_from([1e-3, 1.0, 100.0]))
def test_errors_are_bounded(shape: tuple[int, int], seed: int, scale: float) -> None:
    weights = draw(*shape, seed=seed, scale=scale)
    rows = torch.arange(len(weights))
    span = (weights.amax(1) - weights.amin(1)).unsqueeze(1)
    slack = 2e-8 + 1e-6 * (scale + weights.abs())  # the format adds 1e-8 to the range of a row
    assert ((ByteTable(weights)(rows) - weights).abs() <= span / 255 / 2 + slack).all()
    smallest = 2.0**-25  # half of the smallest half
    half = (HalfTable(weights)(rows) - weights).abs()
    assert (half <= weights.abs() / 2048 + smallest + 1e-12).all()
    # the searched range may cut off what lies outside: never by more than plain rounding in all
    nibbles = (NibbleTable(weights)(rows) - weights).square().sum(1).sqrt()
    bound = (span.squeeze(1) / 15 / 2 + 2e-3 * weights.abs().amax(1) + 1e-6) * shape[1] ** 0.5
    assert (nibbles <= bound).all()


@pytest.mark.parametrize("kind", [HalfTable, ByteTable, NibbleTable])
def test_rows_of_any_shape_in_a_program(kind: type[nn.Module]) -> None:
    table = kind(draw(20, 7))
    rows = torch.tensor([[3, 19, 0], [5, 5, 1]])
    assert torch.equal(table(rows)[1, 2], table(torch.tensor(1)))
    assert table(rows).shape == (2, 3, 7)
    size = torch.export.Dim("size", min=1, max=64)
    exported = torch.export.export(table, (rows,), dynamic_shapes=({0: size},))
    more = torch.cat([rows, rows + 0, rows[:1]])
    assert torch.equal(exported.module()(more), table(more))


def plain_of(**tables: Tensor) -> PlainEmbeddings:
    specs = [FeatureSpec(name, name, len(weights)) for name, weights in tables.items()]
    width = next(iter(tables.values())).shape[1]
    modules = {name: nn.Embedding.from_pretrained(weights) for name, weights in tables.items()}
    return PlainEmbeddings(make_layout(specs, width, PerFeature()), modules)


def figure_of(plain: PlainEmbeddings, weights: dict[str, float]) -> Callable[[], float]:
    """A figure that falls with the mean error of each table, as much as `weights` says."""
    originals = {name: plain.tables[name].weight.clone() for name in weights}

    def figure() -> float:
        fall = 0.0
        for name, original in originals.items():
            errors = plain.tables[name](torch.arange(len(original))) - original
            fall += weights[name] * float(errors.abs().mean())
        return 1 - fall

    return figure


def test_every_table_gets_its_dtype_and_is_recorded() -> None:
    plain = plain_of(user=draw(100, 8), item=draw(40, 8, seed=1), sex=draw(3, 8, seed=2))
    config = QuantisationConfig(dtype="int8", tables={"sex": "fp32", "item": "fp16"}, max_loss=1)
    record = quantise(plain, config, figure_of(plain, {"user": 1.0}))
    found = {name: table["dtype"] for name, table in record["tables"].items()}
    assert found == {"user": "int8", "item": "fp16", "sex": "fp32"}
    assert isinstance(plain.tables["user"], ByteTable)
    assert isinstance(plain.tables["sex"], nn.Embedding)
    assert record["bytes"] == 100 * 16 + 40 * 16 + 3 * 32
    assert record["fp32_bytes"] == 143 * 32
    user = record["tables"]["user"]
    assert 0 < user["mean_error"] < user["max_error"] and 0.001 < user["relative_error"] < 0.01
    assert record["fp32"] == 1 and record["quantised"] == pytest.approx(1 - user["mean_error"])


def test_a_table_beyond_the_error_falls_back() -> None:
    plain = plain_of(user=draw(50, 8))
    config = QuantisationConfig(dtype="int4", max_error=0.02)
    record = quantise(plain, config, lambda: 1.0)["tables"]["user"]
    assert (record["requested"], record["dtype"]) == ("int4", "int8")
    assert record["reason"].startswith("int4 has a relative error of 0.")


def test_the_worst_table_falls_back_until_the_figure_is_good_enough() -> None:
    """Only int4 of `item` hurts, though `user` has the larger error: both are tried."""
    plain = plain_of(user=draw(50, 8), item=draw(50, 8, seed=3, scale=0.9))
    measure = figure_of(plain, {"item": 1.0})
    record = quantise(plain, QuantisationConfig(dtype="int4", max_loss=0.005), measure)
    dtypes = {name: table["dtype"] for name, table in record["tables"].items()}
    assert dtypes["item"] != "int4"
    assert record["fp32"] - record["quantised"] <= 0.005
    assert "the figure fell by" in record["tables"]["item"]["reason"]
    hopeless = plain_of(user=draw(50, 8))
    measure = figure_of(hopeless, {"user": 1e9})
    record = quantise(hopeless, QuantisationConfig(dtype="int4"), measure)
    assert record["tables"]["user"]["dtype"] == "fp32" and record["quantised"] == 1.0


def test_weights_beyond_half_precision_fall_back() -> None:
    plain = plain_of(user=draw(5, 8, scale=1e6))
    record = quantise(plain, QuantisationConfig(dtype="fp16"), lambda: 1.0)
    assert record["tables"]["user"]["dtype"] == "fp32"


def test_unknown_tables_are_named() -> None:
    with pytest.raises(ConfigError, match=r"tables\.itme: no such table; there are: user"):
        quantise(plain_of(user=draw(5, 8)), QuantisationConfig(tables={"itme": "int8"}), lambda: 1)
