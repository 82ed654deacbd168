"""Embeddings: which row holds an id, and the same vectors from TorchRec and from plain tables."""

from __future__ import annotations

import logging

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import JaggedTensor

from feature_store.errors import ConfigError
from feature_store.vocabulary import Vocabulary
from recsys.embeddings.hashing import hash_rows, salt_of
from recsys.embeddings.initial_weights import fill
from recsys.embeddings.layout import FeatureSpec, Layout, make_layout
from recsys.embeddings.options import EmbeddingsConfig, Hashed, PerFeature, TableConfig, Unified
from recsys.embeddings.plain import PlainEmbeddings, RowMaps, masked_mean
from recsys.embeddings.tables import Embeddings, materialise, table_of

WIDTH = 8
FEATURES = [
    FeatureSpec("item", "item", 40),
    FeatureSpec("liked", "item", 40, pooled=True),  # a bag that shares the items' rows
    FeatureSpec("tags", "tags", 12, pooled=True),
    FeatureSpec("country", "country", 5),
]
CONFIGS = {
    "per_feature": PerFeature(),
    "hashed": Hashed(budget_mb=0.0008),
    "unified": Unified(budget_mb=0.0008, probes=4),
    "few_tables": Unified(budget_mb=0.0008, probes=4, unified_tables=3),
    "sharded": PerFeature(shard_above_mb=0),
    "sharded_in_part": PerFeature(shard_above_mb=0.0003),
}
IDS = {
    "item": torch.tensor([[1, 39, 0], [7, 7, 2]]),
    "country": torch.tensor([4, 0]),
}
BAGS = {
    "liked": torch.tensor([[3, 3, 9], [0, 0, 0]]),
    "tags": torch.tensor([[11, 0], [1, 2], [5, 0]]),  # bags of items: as many rows as there are
}


@pytest.fixture(params=list(CONFIGS))
def layout(request: pytest.FixtureRequest) -> Layout:
    return make_layout(FEATURES, WIDTH, CONFIGS[request.param])


def build(layout: Layout) -> Embeddings:
    return materialise(Embeddings(layout))  # type: ignore[return-value]


def rows_of(layout: Layout) -> dict[str, int]:
    return {table.name: table.rows for table in layout.tables}


# -- layout --------------------------------------------------------------------------------


def test_per_feature_has_a_row_for_every_id_and_shares_by_table_name() -> None:
    layout = make_layout(FEATURES, WIDTH, CONFIGS["per_feature"])
    assert rows_of(layout) == {"item": 40, "tags": 12, "country": 5}
    ids = torch.tensor([0, 3, 39])
    for feature, table in (("item", "item"), ("liked", "item"), ("country", "country")):
        (lookup,) = layout.lookups[feature]
        assert lookup.table == table
        assert torch.equal(RowMaps(layout)(lookup, ids), ids)
    # a table is a bag's alone only when no single id reads it
    assert {t.name: t.pooled for t in layout.tables} == {
        "item": False, "tags": True, "country": False
    }  # fmt: skip


def test_hashed_splits_the_budget_by_the_sizes_of_vocabularies() -> None:
    layout = make_layout(FEATURES, WIDTH, CONFIGS["hashed"])
    # 800 bytes are 25 rows of 8 floats: one for each table, and 22 for 40, 12 and 5 of 57 ids
    assert rows_of(layout) == {"item": 16, "tags": 5, "country": 2}
    (lookup,) = layout.lookups["liked"]
    ids = torch.arange(40)
    assert torch.equal(RowMaps(layout)(lookup, ids[1:]), hash_rows(ids[1:], salt_of("item"), 16))


@pytest.mark.parametrize("name", ["hashed", "unified"])
def test_unknown_and_the_id_0_are_looked_up_apart(name: str) -> None:
    """In some probe at least; two ids, or an id and unknown, may share a row by chance."""
    ids = FeatureSpec("item", "item", 5, vocabulary=Vocabulary(pa.array([0, 1, 2, 3])))
    config = CONFIGS[name].model_copy(update={"budget_mb": 1.0})
    layout = make_layout([ids], WIDTH, config)
    maps, rows = RowMaps(layout), torch.arange(5)
    probes = torch.stack([maps(lookup, rows) for lookup in layout.lookups["item"]])
    assert not (probes[:, :1] == probes[:, 1:]).any()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=6),
    st.floats(0.01, 50),
    st.sampled_from([Hashed, Unified]),
)
def test_tables_use_the_budget_and_keep_to_it(
    sizes: list[int], budget_mb: float, kind: type[Hashed | Unified]
) -> None:
    features = [FeatureSpec(f"f{n}", f"f{n}", size) for n, size in enumerate(sizes)]
    tables = make_layout(features, WIDTH, kind(budget_mb=budget_mb)).tables
    assert all(table.rows >= 1 for table in tables)
    used = sum(table.bytes for table in tables)
    row = 4 * tables[0].width
    slack = row * len(tables)  # shares are whole rows
    assert budget_mb * 1e6 - slack - row <= used <= budget_mb * 1e6


def test_unified_reads_one_table_with_a_salt_for_every_table_and_probe() -> None:
    layout = make_layout(FEATURES, WIDTH, CONFIGS["unified"])
    (table,) = layout.tables
    assert (table.rows, table.width) == (100, 2)  # 200 floats in rows of 8 / 4
    salts = {name: [one.salt for one in found] for name, found in layout.lookups.items()}
    assert salts["item"] == salts["liked"]  # what shares a table shares its rows
    distinct = {salt for found in salts.values() for salt in found}
    assert len(distinct) == 3 * 4


def test_probes_take_turns_over_a_few_tables() -> None:
    layout = make_layout(FEATURES, WIDTH, CONFIGS["few_tables"])
    assert rows_of(layout) == {"unified_0": 33, "unified_1": 33, "unified_2": 33}
    for name in ("item", "tags", "country"):
        turns = "".join(one.table[-1] for one in layout.lookups[name])
        assert turns in ("0120", "1201", "2012")
        alone = make_layout([f for f in FEATURES if f.name == name], WIDTH, CONFIGS["few_tables"])
        assert alone.lookups[name] == layout.lookups[name]  # whatever else there is


def test_features_may_have_widths_of_their_own() -> None:
    special = {"tags": TableConfig(probes=1), "country": TableConfig(probes=6)}
    config = CONFIGS["unified"].model_copy(update={"tables": special})
    layout = make_layout(FEATURES, WIDTH, config)
    assert [layout.width(f.name) for f in FEATURES] == [8, 8, 2, 12]
    found = build(layout)(IDS, BAGS)
    assert (found["country"].shape, found["tags"].shape) == ((2, 12), (3, 2))
    for name in ("per_feature", "hashed"):
        special = {"tags": TableConfig(width=4)}
        layout = make_layout(FEATURES, WIDTH, CONFIGS[name].model_copy(update={"tables": special}))
        assert [layout.width(f.name) for f in FEATURES] == [8, 8, 4, 8]
    with pytest.raises(ConfigError, match=r"tags must have the width 8 .*tables.tags makes it 4"):
        layout.require("tags", 8)


def test_a_row_depends_on_the_raw_id_and_not_on_what_else_is_known() -> None:
    """So that a hashed table stays right when the vocabulary grows, in any order."""
    few = Vocabulary.fit(pa.array(["b", "z", "é"]))
    many = Vocabulary.fit(pa.array([f"{n}" for n in range(500)] + ["é", "b"]), base=None)
    for config in (CONFIGS["unified"], CONFIGS["few_tables"]):
        places = []
        for vocabulary in (few, many):
            spec = FeatureSpec("x", "x", len(vocabulary), vocabulary=vocabulary)
            layout = make_layout([spec], WIDTH, config)
            rows = torch.from_numpy(vocabulary.encode(pa.array(["b", "é", None])))
            maps = RowMaps(layout)
            places.append([maps(one, rows).tolist() for one in layout.lookups["x"]])
        assert places[0] == places[1]


def test_a_name_that_modules_have_is_refused() -> None:
    for name in ("type", "items", "float"):
        with pytest.raises(ConfigError, match=f"cannot be called '{name}'.* rename the feature"):
            make_layout([FeatureSpec(name, name, 3)], WIDTH, PerFeature())


def test_what_a_model_sums_may_not_share_a_table() -> None:
    features = [FeatureSpec("item", "item", 40), FeatureSpec("position", "position", 9)]
    summed = [("item", "position")]
    for name in ("unified", "few_tables"):
        with pytest.raises(ConfigError, match=r"item and position are summed .*'unified"):
            make_layout(features, WIDTH, CONFIGS[name], summed=summed)
    for name in ("per_feature", "hashed"):
        make_layout(features, WIDTH, CONFIGS[name], summed=summed)
    shared = [FeatureSpec("item", "item", 40), FeatureSpec("liked", "item", 40)]
    make_layout(shared, WIDTH, CONFIGS["unified"], summed=[("item", "liked")])  # one vocabulary


def test_tables_above_the_limit_are_sharded() -> None:
    layout = make_layout(FEATURES, WIDTH, CONFIGS["sharded_in_part"])
    assert {t.name: t.sharded for t in layout.tables} == {
        "item": True, "tags": True, "country": False  # 1280, 384 and 160 bytes; limit 300
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Unified(budget_mb=1, probes=3),
            "probes = 3 does not divide the width 8",
        ),
        (
            Unified(budget_mb=1e-6),
            "budget_mb = 1e-06 is less than a row for every table: 1.6e-05 at least",
        ),
        (Hashed(budget_mb=5e-5), "9.6e-05 at least"),
        (
            PerFeature(tables={"itme": TableConfig(rows=9)}),
            "tables.itme: no such table; there are: item, tags, country",
        ),
        (
            PerFeature(tables={"item": TableConfig(probes=2)}),
            "tables.item.probes means nothing in the layout 'per_feature'; .* rows, width",
        ),
        (
            Hashed(budget_mb=1, tables={"item": TableConfig(rows=99)}),
            "tables.item.rows means nothing in the layout 'hashed'",
        ),
    ],
)
def test_layouts_that_cannot_be_are_refused(config: EmbeddingsConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_layout(FEATURES, WIDTH, config)


# -- vectors -------------------------------------------------------------------------------


def test_vectors_are_the_rows_of_the_tables(layout: Layout) -> None:
    embeddings = build(layout)
    plain = embeddings.plain()
    found = embeddings(IDS, BAGS)

    def vectors(feature: str, ids: Tensor) -> Tensor:
        probes = layout.lookups[feature]
        return torch.cat(
            [plain.tables[one.table].weight[plain.maps(one, ids)] for one in probes], dim=-1
        )

    for name, ids in IDS.items():
        assert found[name].shape == (*ids.shape, WIDTH)
        torch.testing.assert_close(found[name], vectors(name, ids))
    for name, bags in BAGS.items():
        for row, bag in enumerate(bags):
            inside = bag[bag != 0]
            mean = vectors(name, inside).mean(0) if len(inside) else torch.zeros(WIDTH)
            torch.testing.assert_close(found[name][row], mean)


def test_plain_tables_give_the_same_vectors(layout: Layout) -> None:
    embeddings = build(layout)
    plain = embeddings.plain()
    expected, found = embeddings(IDS, BAGS), plain(IDS, BAGS)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-6)
    one = {"country": torch.tensor([1])}
    torch.testing.assert_close(plain(one)["country"], embeddings(one)["country"])
    assert not any("torchrec" in type(module).__module__ for module in plain.modules())


def test_plain_tables_are_a_copy() -> None:
    embeddings = build(make_layout(FEATURES, WIDTH, CONFIGS["per_feature"]))
    plain = embeddings.plain()
    before = plain(IDS)["item"].clone()
    with torch.no_grad():
        for weights in embeddings.parameters():
            weights.add_(1)
    assert torch.equal(plain(IDS)["item"], before)


def test_gradients_reach_the_rows_that_were_read_and_no_other(layout: Layout) -> None:
    embeddings = build(layout)
    ids, bags = {"item": torch.tensor([3, 5])}, {"tags": torch.tensor([[2, 0]])}
    found = embeddings(ids, bags)
    sum(vectors.sum() for vectors in found.values()).backward()
    read: dict[str, set[int]] = {table.name: set() for table in layout.tables}
    for name, values in (("item", ids["item"]), ("tags", torch.tensor([2]))):
        for one in layout.lookups[name]:
            read[one.table] |= set(embeddings.maps(one, values).tolist())
    for name, weights in embeddings.named_parameters():
        touched: set[int] = set()
        if weights.grad is not None:
            gradient = weights.grad.to_dense() if weights.grad.is_sparse else weights.grad
            touched = set(gradient.abs().sum(1).nonzero().squeeze(1).tolist())
        assert touched == read[table_of(name)]


def test_bags_may_be_jagged(layout: Layout) -> None:
    """As the reader's batches hold them, without padding."""
    embeddings = build(layout)
    jagged = {
        name: JaggedTensor(bag[bag != 0], lengths=(bag != 0).sum(1)) for name, bag in BAGS.items()
    }
    expected, found = embeddings(IDS, BAGS), embeddings(IDS, jagged)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_large_tables_have_no_memory_until_they_are_given_some() -> None:
    embeddings = Embeddings(make_layout(FEATURES, WIDTH, CONFIGS["sharded_in_part"]))
    assert {table_of(n): p.is_meta for n, p in embeddings.named_parameters()} == {
        "item": True, "tags": True, "country": False
    }  # fmt: skip
    assert not any(p.is_meta for p in materialise(embeddings).parameters())


@pytest.mark.parametrize("options", [{"init_std": 0.5}, {"init_range": 0.05}])
def test_initial_weights_have_the_asked_spread(options: dict[str, float]) -> None:
    config = PerFeature(**options)  # type: ignore[arg-type]
    embeddings = build(make_layout([FeatureSpec("x", "x", 5000)], WIDTH, config))
    (weights,) = embeddings.parameters()
    assert weights.mean().item() == pytest.approx(0, abs=0.02)
    if config.init_range is None:
        assert kstest(weights.detach().flatten(), "norm", (0, 0.5)).pvalue > 1e-3
    else:
        assert weights.abs().max() <= 0.05
        assert kstest(weights.detach().flatten(), "uniform", (-0.05, 0.1)).pvalue > 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(0, 8), st.integers(0, 3))
def test_a_part_of_a_table_starts_as_that_part_of_the_whole(
    row: int, column: int, seed: int
) -> None:
    """However it is split: by rows, by columns, or grown later."""
    config = PerFeature(init_std=0.1)
    whole_table, part = torch.empty(50, 12), torch.empty(50 - row, 12 - column)
    fill(whole_table, "item", 12, config, seed=seed)
    fill(part, "item", 12, config, seed=seed, first_row=row, first_column=column)
    assert torch.equal(part, whole_table[row:, column:])


def test_tables_and_seeds_start_differently() -> None:
    drawn = []
    for table, seed in (("item", 0), ("user", 0), ("item", 1)):
        drawn.append(torch.empty(6, 4))
        fill(drawn[-1], table, 4, PerFeature(), seed=seed)
    assert len({float(one[0, 0]) for one in drawn}) == 3
    assert drawn[0][0, :2].tolist() == pytest.approx([-0.0080376, 0.0283443], rel=1e-5)


@pytest.mark.parametrize("name", ["per_feature", "hashed", "unified", "few_tables"])
def test_an_exported_program_gives_the_same_vectors(name: str) -> None:
    class Lookup(nn.Module):
        def __init__(self, plain: PlainEmbeddings) -> None:
            super().__init__()
            self.plain = plain

        def forward(self, item: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
            found = self.plain({"item": item}, {"tags": tags})
            return found["item"], found["tags"]

    module = Lookup(build(make_layout(FEATURES, WIDTH, CONFIGS[name])).plain())
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(
        module,
        (torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)),
        dynamic_shapes=({0: rows}, {0: rows}),
    )
    item, tags = (
        torch.arange(15).view(5, 3),
        torch.tensor([[1, 2], [0, 0], [3, 0], [4, 4], [11, 0]]),
    )
    for eager, exported in zip(module(item, tags), program.module()(item, tags), strict=True):
        torch.testing.assert_close(exported, eager)


def test_the_mean_of_nothing_is_zero() -> None:
    vectors = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [7.0, 7.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    assert masked_mean(vectors, mask).tolist() == [[2.0, 4.0], [0.0, 0.0]]
