"""Plans: bytes worked out by hand, and the same answer on every process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import ConfigError
from recsys.embeddings.layout import FeatureSpec, Layout, make_layout
from recsys.embeddings.options import PerFeature, Sharding, TableConfig
from recsys.embeddings.planning import make_plan


def layout_of(
    rows: dict[str, int], width: int = 8, above_mb: float = 0.001, **sharding: Sharding
) -> Layout:
    """Features with a table each; those above a kilobyte are sharded."""
    tables = {name: TableConfig(sharding=kind) for name, kind in sharding.items()}
    config = PerFeature(shard_above_mb=above_mb, tables=tables)
    return make_layout([FeatureSpec(name, name, n) for name, n in rows.items()], width, config)


def test_a_large_table_is_split_by_rows_and_a_small_one_is_everywhere() -> None:
    plan = make_plan(layout_of({"user": 1000, "sex": 3}), 4, dense=500)
    user, sex = plan.placements
    assert (user.kind, sex.kind) == ("row_wise", "replicated")
    assert [shard.rows for shard in user.shards] == [250] * 4
    # 250 rows of 8 floats and a number each; 3 x 8 floats with gradient and two moments
    for load in plan.loads:
        assert load.weights == 250 * 32 + 3 * 32 + 500
        assert load.state == 250 * 4 + 3 * 32 * 3
        assert load.lookups == 0.25 + 1
    assert plan.balance == (1.0, 1.0)


@pytest.mark.parametrize(
    ("optimizer", "bytes_of_state"),
    [("sgd", 0), ("rowwise_adagrad", 1000 * 4), ("adagrad", 32_000), ("adam", 64_000)],
)
def test_optimizer_state_is_counted(optimizer: str, bytes_of_state: int) -> None:
    plan = make_plan(layout_of({"user": 1000}), 1, sharded=lambda table: optimizer)
    (load,) = plan.loads
    assert (load.weights, load.state) == (32_000, bytes_of_state)


def test_tables_that_are_small_beside_the_rest_stay_whole_on_the_emptiest() -> None:
    plan = make_plan(layout_of({"a": 8000, "b": 90, "c": 80, "d": 70, "e": 60}), 3)
    where = {one.table.name: one for one in plan.placements}
    assert where["a"].kind == "row_wise"
    # the rows of a fall as 2667, 2667, 2666; then the largest first, each on the emptiest
    assert {n: where[n].shards[0].rank for n in "bcde"} == {"b": 2, "c": 0, "d": 1, "e": 1}
    assert plan.balance[0] < 1.02


def test_what_fits_and_what_is_missing() -> None:
    plan = make_plan(layout_of({"user": 1000}), 2)
    held = plan.loads[0].bytes
    assert held == 500 * 36
    assert plan.missing(held / 0.85) == pytest.approx(0, abs=1e-6)
    assert plan.missing(10_000) == pytest.approx(held - 8500)


def test_a_table_may_ask_for_its_place() -> None:
    layout = layout_of({"a": 1000, "b": 1000, "c": 1000}, a="table_wise", b="replicated")
    plan = make_plan(layout, 2)
    assert [one.kind for one in plan.placements] == ["table_wise", "replicated", "row_wise"]
    small = layout_of({"a": 3}, a="row_wise")
    assert [s.rows for s in make_plan(small, 2).placements[0].shards] == [2, 1]


def test_columns_are_split_where_the_optimizer_allows() -> None:
    layout = layout_of({"a": 1000}, a="column_wise")
    with pytest.raises(ConfigError, match=r"one number for each row of each shard.*'adagrad'"):
        make_plan(layout, 2)
    for optimizer in ("adagrad", "sgd", "adam"):
        plan = make_plan(layout, 2, sharded=lambda table, name=optimizer: name)
        assert [(s.rows, s.columns) for s in plan.placements[0].shards] == [(1000, 4)] * 2
    with pytest.raises(ConfigError, match="8 columns cannot be split over 3 processes"):
        make_plan(layout, 3, sharded=lambda table: "sgd")


def test_gpus_need_rows_of_whole_lanes() -> None:
    layout = layout_of({"a": 1000, "b": 2}, width=15)
    with pytest.raises(ConfigError, match=r"table a is 15 wide.* multiple of 4"):
        make_plan(layout, 2, device="cuda")
    make_plan(layout, 2, device="cpu")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 10**7), min_size=1, max_size=12),
    st.integers(1, 64),
    st.sampled_from(["sgd", "rowwise_adagrad", "adagrad"]),
)
def test_every_row_has_one_place_and_no_process_holds_too_much(
    sizes: list[int], world: int, optimizer: str
) -> None:
    layout = layout_of({f"t{n}": size for n, size in enumerate(sizes)})
    plan = make_plan(layout, world, sharded=lambda table: optimizer)
    sharded = [one for one in plan.placements if one.kind != "replicated"]
    for one in sharded:
        assert sum(shard.rows * shard.columns for shard in one.shards) == one.table.rows * 8
    assert plan == make_plan(layout, world, sharded=plan_optimizer(optimizer))
    small = min((one.table.rows for one in sharded), default=world)
    if sharded and small >= 100 * world:  # blocks of few rows are uneven
        assert plan.balance[0] < 1.3


def plan_optimizer(name: str) -> Callable[[str], str]:
    return lambda table: name
