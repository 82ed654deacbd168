"""How would training scale on clusters that are not there?

Measures a step of a click model with one process here, and derives what one process does: bytes a
second for rows of tables, operations a second of what is dense, and the seconds of a step that no
size changes. From those, and what exchanges take here, it computes the step of two processes, and
measures that too, in seconds of a processor: `two_processes_ratio` is computed over measured.
Histories are looked up as bags, whose vectors are summed where their rows lie, and id by id, whose
vectors are all sent.

Then steps of 1, 8, 64 and 512 GPUs whose links are stated (`Machine`), and what each process holds
of tables of 10^8 to 10^11 users (and a tenth as many items). A GPU is taken to reach the share of
its own memory's bandwidth and of its operations that a process reached here, where the kernel of
bags is taken for both: that of ids has not been made fast for CPUs. Beside each plan stands that of
TorchRec's EmbeddingShardingPlanner. Assumptions go to stderr.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.scaling import measured
from benchmarks.scaling.chart import draw
from benchmarks.scaling.cost import Links, Rates, buffers, step_of
from benchmarks.scaling.machine import Machine
from benchmarks.scaling.torchrec_planner import advise
from recsys.embeddings.planning import GB, make_plan

WORLDS = (1, 8, 64, 512)
ROWS = (10**8, 10**9, 10**10, 10**11)
DRAWN = 10**9  # rows of the table whose steps are drawn


def told_by(processes: int, options: list[str]) -> dict[str, float]:
    """What so many processes measure here."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    start = launcher if processes > 1 else []
    command = [sys.executable, *start, "-m", "benchmarks.scaling.measured", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def two_here(
    kind: str, args: argparse.Namespace, one: dict[str, float], two: dict[str, float]
) -> float:
    """The step of two processes on this machine that the rates of one predict, in seconds, where
    tables lie as they do in the processes that are measured."""
    pooled = measured.KINDS[kind]
    work = measured.work_of(args.batch, args.history, args.width, pooled)
    rates = measured.rates_of(one, kind, work, args.width)
    layout = measured.layout_of(args.rows, args.width, pooled, measured.SHARDING)
    plan = make_plan(layout, 2)
    links = Links(two["link"], two["link"], two["latency"], local=2)
    return step_of(plan, work, rates, links).seconds


def cell(
    rows: int, world: int, kind: str, args: argparse.Namespace, rates: Rates, machine: Machine
) -> dict[str, Any]:
    """One size of tables on one size of cluster, by our plan and by TorchRec's."""
    pooled = measured.KINDS[kind]
    work = measured.work_of(args.batch, args.history, args.width, pooled)
    layout = measured.layout_of(rows, args.width, pooled)
    plan = make_plan(layout, world, device="cuda", dense=4 * work.dense)
    step = step_of(plan, work, rates, machine.links)
    features = {measured.USER: 1.0, measured.ITEM: 1.0, measured.HISTORY: float(args.history)}
    theirs = advise(layout, features, world, work.batch, machine)
    ours = {placement.table.name: placement.kind for placement in plan.placements}
    fits = plan.missing(machine.memory) == 0
    return {
        "rows": rows,
        "world": world,
        "lists": kind,
        "fits": fits,
        "gb": (plan.loads[plan.fullest].bytes + buffers(plan, work)) / GB,
        "step_ms": 1e3 * step.seconds if fits else None,
        "parts_ms": {name: 1e3 * seconds for name, seconds in asdict(step).items()},
        "kinds": ours,
        "torchrec": None
        if theirs is None
        else {"kinds": theirs.kinds, "gb": theirs.held / GB, "tables_ms": 1e3 * theirs.seconds},
        "agrees": fits == (theirs is not None) and (theirs is None or theirs.kinds == ours),
    }


def line(found: dict[str, Any]) -> str:
    """A cell, for people."""
    where = ", ".join(f"{name} {kind}" for name, kind in found["kinds"].items())
    ours = f"{found['step_ms']:.2f} ms" if found["fits"] else "does not fit"
    theirs = found["torchrec"]
    other = "has no plan"
    if theirs is not None:
        kinds = ", ".join(f"{name} {kind}" for name, kind in theirs["kinds"].items())
        other = f"{kinds}; {theirs['gb']:.2f} GB, tables {theirs['tables_ms']:.2f} ms"
    size = f"{found['lists']}: {found['rows']:.0e} users on {found['world']:>3}"
    told = f"{size}: {ours}, {found['gb']:.2f} GB, {where}"
    return f"{told} | TorchRec: {other}"


def say(text: str) -> None:
    """For people."""
    print(text, file=sys.stderr)


def rounded(value: Any) -> Any:
    """Four digits of every number."""
    if isinstance(value, dict):
        return {name: rounded(of) for name, of in value.items()}
    if isinstance(value, list):
        return [rounded(of) for of in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def arguments() -> argparse.ArgumentParser:
    """Those of the measurement, and of the machines that are not there."""
    parser = measured.arguments()
    parser.description = __doc__.splitlines()[0]
    for field in fields(Machine):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--plot", type=Path, default=Path("scaling.svg"))
    return parser


def main(words: list[str] | None = None) -> None:
    """Measure, compute, draw, print one JSON line."""
    args = arguments().parse_args(words)
    machine = Machine(**{field.name: getattr(args, field.name) for field in fields(Machine)})
    names = ("rows", "width", "batch", "history", "steps", "copied", "product")
    options = [f"--{name}={getattr(args, name)}" for name in names]
    one, two = (told_by(processes, options) for processes in (1, 2))
    work = measured.work_of(args.batch, args.history, args.width, pooled=True)
    here = measured.rates_of(one, "bags", work, args.width)
    there = machine.rates(here, one["copies"], one["products"])
    ratios = {}
    for kind in measured.KINDS:
        predicted, taken = two_here(kind, args, one, two), two[f"{kind}_step"]
        ratios[kind] = predicted / taken
        say(f"{kind} by two here: computed {1e3 * predicted:.1f} ms, measured {1e3 * taken:.1f}")
    say(
        f"here: {here.lookup / GB:.2f} GB/s for rows of tables, {here.lookup / one['copies']:.1%} "
        f"of copying; {here.dense / 1e9:.1f} GFLOP/s, {here.dense / one['products']:.0%} of a "
        f"product of matrices; {1e3 * here.overhead:.2f} ms a step whatever its size; exchanges at "
        f"{two['link'] / GB:.2f} GB/s, and {1e3 * two['latency']:.2f} ms at the least"
    )
    say(f"assumed: {machine}")
    say(
        f"assumed: a GPU reaches the same shares, so {there.lookup / 1e9:.0f} GB/s and "
        f"{there.dense / 1e12:.2f} TFLOP/s; the same {1e3 * there.overhead:.2f} ms a step; "
        f"{args.batch} examples for each; ids spread evenly; nothing overlaps"
    )
    cells = []
    for kind in measured.KINDS:
        for rows in ROWS:
            for world in WORLDS:
                cells.append(cell(rows, world, kind, args, there, machine))
                say(line(cells[-1]))
    draw(cells, DRAWN, machine.memory / GB, args.plot)
    print(
        json.dumps(
            rounded(
                {
                    "benchmark": "scaling",
                    "two_processes_ratio": ratios,
                    "agreeing_plans": sum(found["agrees"] for found in cells) / len(cells),
                    "here": {**asdict(here), **one, "two": two},
                    "machine": asdict(machine),
                    "cells": cells,
                    **{name: getattr(args, name) for name in ("width", "batch", "history")},
                    "plot": str(args.plot),
                }
            )
        )
    )


if __name__ == "__main__":
    main()
