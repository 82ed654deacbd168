"""The cost of steps by hand, and the program on tiny tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.embedding_step import bytes_of_step
from benchmarks.scaling import __main__ as program
from benchmarks.scaling import measured
from benchmarks.scaling.cost import Links, Rates, Step, Work, buffers, moved, step_of
from benchmarks.scaling.machine import Machine
from benchmarks.scaling.torchrec_planner import advise
from recsys.distributed import join
from recsys.embeddings.layout import FeatureSpec, Layout, make_layout
from recsys.embeddings.options import PerFeature, TableConfig
from recsys.embeddings.planning import Plan, make_plan

LINKS = Links(within=100, across=10, latency=1, local=2)
RATES = Rates(lookup=192, dense=40, overhead=0.5)


def test_exchanges_take_as_long_as_the_slower_kind_of_link() -> None:
    assert LINKS.all_to_all(400, 1) == LINKS.ring(400, 1) == LINKS.all_to_all(0, 4) == 0
    assert LINKS.all_to_all(400, 2) == 1 + 200 / 100
    assert LINKS.all_to_all(400, 4) == 1 + 200 / 10  # half of it goes to the other host
    assert LINKS.ring(400, 2) == 1 + 200 / 100
    assert LINKS.ring(400, 4) == 1 + 300 / 2 / 10  # two processes share what leaves a host
    assert LINKS.all_reduce(400, 4) == 32


def test_rows_are_read_and_updated() -> None:
    assert moved(2, 10, 10) == 4 * (10 * 2 + 2 * 10 * 2 + 10 * 2 * (2 + 1))
    assert moved(64, 20 * 4096, 4096) == bytes_of_step(4096, 20, 64)


def plan_of(sharding: Any, pooled: bool = False, world: int = 2) -> Plan:
    """A table of 8 rows of 2 floats."""
    config = PerFeature(shard_above_mb=0, tables={"user": TableConfig(sharding=sharding)})
    return make_plan(make_layout([FeatureSpec("user", "user", 8, pooled)], 2, config), world)


def work(ids: float = 1) -> Work:
    return Work(batch=4, ids={"user": ids}, vectors={"user": 1}, operations=10, dense=100)


def test_vectors_of_rows_come_from_everyone() -> None:
    """4 ids of 8 bytes, and as many vectors of 8 bytes, half of which stay."""
    step = step_of(plan_of("row_wise"), work(), RATES, LINKS)
    assert step == Step(
        overhead=0.5,
        dense=4 * 10 / 40,
        tables=1.0,  # 4 * (4 * 2 + 2 * 4 * 2 + 4 * 6) bytes
        ids=1.16,
        vectors=1.16,
        gradients=1.16,
        summed=2 * (1 + 50 / 100),
    )
    assert step.seconds == pytest.approx(8.98)
    assert buffers(plan_of("row_wise"), work()) == 8 * (4 + 4) + 2 * 8 * (4 + 4)


def test_the_process_of_a_whole_table_answers_for_all() -> None:
    step = step_of(plan_of("table_wise"), work(), RATES, LINKS)
    assert (step.tables, step.ids, step.vectors) == (2.0, 1.16, 1 + 64 / 2 / 100)
    assert buffers(plan_of("table_wise"), work()) == 8 * (4 + 8) + 2 * 8 * (4 + 8)


def test_bags_over_all_processes_are_summed_in_parts() -> None:
    """12 ids ask 12 rows, of which each process makes parts of the vectors of all 8 examples."""
    step = step_of(plan_of("row_wise", pooled=True), work(3), RATES, LINKS)
    assert step.ids == 1 + 96 / 2 / 100
    assert step.vectors == step.gradients == 1 + 64 / 2 / 100
    assert step.tables == 4 * (12 * 2 + 2 * 8 * 2 + 12 * 6) / 192
    assert buffers(plan_of("row_wise", pooled=True), work(3)) == 8 * 24 + 2 * 8 * (4 + 8)


def test_a_replicated_table_is_summed_whole() -> None:
    step = step_of(plan_of("replicated"), work(), RATES, LINKS)
    assert (step.ids, step.vectors) == (0, 0)
    assert step.tables == (192 + 7 * 64) / 192
    assert step.summed == pytest.approx(2 * (1 + 164 / 2 / 100))


def test_parts_of_bags_grow_with_the_processes_and_vectors_of_ids_do_not() -> None:
    of_ids, of_bags = (
        [step_of(plan_of("row_wise", pooled, w), work(), RATES, LINKS).vectors for w in (4, 8)]
        for pooled in (False, True)
    )
    assert of_bags[1] > 2 * of_bags[0] - LINKS.latency > of_ids[0]
    assert of_ids[1] - LINKS.latency < 32 / 10


def test_rates_are_parts_of_the_steps_of_one_process() -> None:
    """.2 s whatever its size, .01 an example; the tower takes .3 s of 80 of them."""
    told = {"ids_step": 1.0, "ids_small_step": 0.3, "dense": 0.3}
    asked = Work(batch=80, ids={"user": 2.0}, vectors={"user": 2.0}, operations=6, dense=1)
    rates = measured.rates_of(told, "ids", asked, width=2)
    assert rates.overhead == pytest.approx(0.2)
    assert rates.dense == pytest.approx(80 * 6 / 0.3)
    assert rates.lookup == pytest.approx(moved(2, 160, 160) / 0.5)
    machine = Machine(bandwidth=1000, operations=500)
    there = machine.rates(rates, copies=10 * rates.lookup, products=4 * rates.dense)
    assert (there.lookup, there.dense, there.overhead) == (100, 125, rates.overhead)


@pytest.mark.parametrize("kind", measured.KINDS)
def test_two_processes_that_share_every_table_take_what_one_does_and_the_exchanges(
    kind: str,
) -> None:
    """The tables lie as in the steps that are measured: of a table that lay whole on one of the
    two, that one would answer twice as much. Parts of bags are made twice as often, and summed."""
    args = measured.arguments().parse_args(["--width=8", "--batch=80", "--history=20"])
    one = {f"{kind}_step": 1.0, f"{kind}_small_step": 0.125, "dense": 0.3}
    free = {"link": 1e30, "latency": 0.0}
    alone = program.two_here(kind, args, one, free)
    assert 1 - 1e-9 < alone < (1.15 if kind == "bags" else 1 + 1e-9)
    slow = {"link": 1e6, "latency": 0.0}
    assert program.two_here(kind, args, one, slow) > alone


@pytest.fixture(scope="module")
def layout() -> Layout:
    return measured.layout_of(10**9, 64, pooled=False)


def test_torchrecs_planner_is_asked_the_same(layout: Layout) -> None:
    asked = {"user": 1.0, "item": 1.0, "history": 20.0}
    advice = advise(layout, asked, 8, 4096, Machine())
    assert advice is not None and set(advice.kinds) == {"user", "item"}
    assert 1.1e9 * 260 / 8 < advice.held < 80e9 and advice.seconds > 0
    assert advise(layout, asked, 1, 4096, Machine()) is None  # 260 GB


def test_the_program_measures_computes_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told_by(processes: int, options: list[str]) -> dict[str, float]:
        args = measured.arguments().parse_args(options)
        with join("cpu") as group:
            told = measured.measure(args, group, tmp_path)
        return told | {"link": 1e9, "latency": 1e-4}

    monkeypatch.setattr(program, "told_by", told_by)
    monkeypatch.setattr(program, "WORLDS", (1, 8))
    monkeypatch.setattr(program, "ROWS", (10**8, 10**9))
    sizes = "--rows 50 --width 4 --batch 16 --history 3 --steps 1 --copied 1000 --product 16"
    program.main([*sizes.split(), "--plot", str(tmp_path / "scaling.svg")])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(ratio > 0 for ratio in told["two_processes_ratio"].values())
    assert [of["lists"] for of in told["cells"]] == ["bags"] * 4 + ["ids"] * 4
    assert [of["kinds"]["user"] for of in told["cells"][:2]] == ["table_wise", "row_wise"]
    assert (tmp_path / "scaling.svg").read_text().count("<svg") == 1
