"""Several processes train, measure and save what one does, wherever the tables lie."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance import LAYOUTS, TRAINED, shape_of
from planted import Shape
from recsys import rankers
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.retrievers import RETRIEVERS
from workers.train import CHECKPOINT_STEP, PLACEMENTS, Case, outcome, work

TESTS = Path(__file__).resolve().parents[1]
TIMEOUT = 240  # seconds: a process that waits for another for ever must not hold up the tests
LEARNING = [*TRAINED, *rankers.RANKERS]
# (model, layout, placement): every layout of every model, every placement of each table kind
VARIANTS = [(name, layout, "row_wise") for name in LEARNING for layout in LAYOUTS]
VARIANTS += [(name, "per_feature", "replicated") for name in LEARNING]
VARIANTS += [
    (name, "per_feature", placement)
    for name in ("two_tower", *rankers.RANKERS)
    for placement in PLACEMENTS
    if placement not in ("row_wise", "replicated")
]
VARIANTS += [(name, "per_feature", "replicated") for name in RETRIEVERS if name not in TRAINED]
# checkpoints of (model, placement) on N processes -> M processes, maybe placed otherwise
ELASTIC = [
    ("two_tower", "row_wise", 1, 4, "row_wise"),
    ("two_tower", "row_wise", 4, 2, "table_wise"),
    ("two_tower", "table_wise", 2, 4, "row_wise"),
    ("two_tower", "row_wise", 4, 1, "row_wise"),
    ("dcn", "column_wise", 2, 4, "planned"),
    ("dcn", "planned", 4, 1, "column_wise"),
    ("dcn", "row_wise", 2, 2, "table_wise"),
    ("sasrec", "row_wise", 4, 4, "row_wise"),
    ("sasrec", "replicated", 1, 2, "replicated"),
    ("sasrec", "replicated", 4, 1, "replicated"),
    ("dcn", "replicated", 2, 4, "replicated"),
    ("two_tower", "row_wise", 2, 2, "row_wise"),
    ("dcn", "table_wise", 4, 4, "table_wise"),
]
Outcomes = dict[tuple[Any, ...], dict[str, Any]]


def case_of(
    root: Path, planted: dict[Shape, Examples], model: str, layout: str, placement: str, way: str
) -> Case:
    name = f"{model}-{layout}-{placement}-{way}"
    examples = str(planted[shape_of(model)].folder)
    return Case(model, layout, placement, examples, str(root / name))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def runs(planted: dict[Shape, Examples], root: Path) -> Outcomes:
    """Outcomes of every variant on one process and on two.

    All that two processes do, they do in one start: imports take longer than the rest.
    """
    found: Outcomes = {}
    cases = {
        (*variant, world): case_of(root, planted, *variant, f"on{world}")
        for variant in VARIANTS
        for world in (1, 2)
    }
    with join("cpu") as group:
        for key, case in cases.items():
            if key[-1] == 1:
                work(case, group)
    torchrun([case for key, case in cases.items() if key[-1] == 2], root, 2)
    for key, case in cases.items():
        found[key] = outcome(case)
    return found


@pytest.fixture(scope="module")
def moved(runs: Outcomes, planted: dict[Shape, Examples], root: Path) -> Outcomes:
    """Outcomes of trainings that went on from a checkpoint of N processes on M."""
    four = {(m, p) for m, p, n, _, _ in ELASTIC if n == 4}
    torchrun([case_of(root, planted, m, "per_feature", p, "on4") for m, p in four], root, 4)
    ways: dict[tuple[Any, ...], Case] = {}
    for model, placement, saved, loaded, then in ELASTIC:
        giver = case_of(root, planted, model, "per_feature", placement, f"on{saved}")
        way = f"from-{placement}-on{saved}-to-on{loaded}"
        taker = case_of(root, planted, model, "per_feature", then, way)
        checkpoint = f"checkpoints/step-{CHECKPOINT_STEP:09d}"
        shutil.copytree(Path(giver.folder) / checkpoint, Path(taker.folder) / checkpoint)
        ways[model, placement, saved, loaded, then] = taker
    with join("cpu") as group:
        for key, case in ways.items():
            if key[3] == 1:
                work(case, group)
    for world in (2, 4):
        torchrun([case for key, case in ways.items() if key[3] == world], root, world)
    return {key: outcome(case) for key, case in ways.items()} | {
        (m, p, 4): outcome(case_of(root, planted, m, "per_feature", p, "on4")) for m, p in four
    }


def torchrun(cases: list[Case], root: Path, world: int, *options: str) -> None:
    spec = root / f"cases{world}.json"
    spec.write_text(json.dumps([asdict(case) for case in cases]))
    done = subprocess.run(
        [*command(*(options or ("--standalone",)), "--nproc-per-node", world), spec],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def command(*options: object) -> list[str]:
    program = TESTS / "workers" / "train.py"
    start = [sys.executable, "-m", "torch.distributed.run"]
    return [*start, *map(str, options), str(program)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parents[1])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def assert_same(one: dict[str, Any], other: dict[str, Any], skipped: int = 0) -> None:
    """Equal within float noise, from the step on that `other` began with."""
    losses = one["losses"][skipped:]
    torch.testing.assert_close(other["losses"], losses, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other["answers"], one["answers"], atol=1e-4, rtol=1e-4)
    assert other["metrics"] == pytest.approx(one["metrics"], abs=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_two_processes_train_and_measure_as_one(
    runs: Outcomes, variant: tuple[str, str, str]
) -> None:
    alone, together = runs[*variant, 1], runs[*variant, 2]
    assert_same(alone, together)
    assert together["validation"] == pytest.approx(alone["validation"], abs=1e-4)
    if variant[0] in LEARNING:
        assert len(alone["losses"]) == 16
        assert alone["losses"][-4:].mean() < alone["losses"][:4].mean()


@pytest.mark.parametrize("model", ["two_tower", "dcn"])
def test_where_tables_lie_changes_nothing(runs: Outcomes, model: str) -> None:
    """Under the same optimizer: by rows, by tables, by columns, or as planned."""
    for one, other in (("row_wise", "table_wise"), ("column_wise", "planned")):
        assert_same(runs[model, "per_feature", one, 2], runs[model, "per_feature", other, 2])


@pytest.mark.parametrize("way", ELASTIC, ids=lambda way: "-".join(map(str, way)))
def test_a_checkpoint_goes_on_elsewhere(
    runs: Outcomes, moved: Outcomes, way: tuple[str, str, int, int, str]
) -> None:
    model, placement, saved, loaded, then = way
    whole = (
        moved[model, placement, 4] if saved == 4 else runs[model, "per_feature", placement, saved]
    )
    assert_same(whole, moved[way], CHECKPOINT_STEP)
    if saved == loaded and placement == then:  # the same machine: bit for bit
        assert torch.equal(moved[way]["losses"], whole["losses"][CHECKPOINT_STEP:])
        assert torch.equal(moved[way]["answers"], whole["answers"])


def test_two_hosts_find_each_other_and_train_as_one(
    runs: Outcomes, planted: dict[Shape, Examples], root: Path
) -> None:
    """Two torchrun agents with a rendezvous on loopback, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    case = case_of(root, planted, "two_tower", "per_feature", "row_wise", "hosts")
    spec = root / "hosts.json"
    spec.write_text(json.dumps([asdict(case)]))
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    agents = [
        subprocess.Popen(
            [*command("--nnodes=2", "--nproc-per-node=1", *rendezvous), str(spec)],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for agent in agents:
        _, errors = agent.communicate(timeout=TIMEOUT)
        assert agent.returncode == 0, errors[-5000:]
    assert_same(runs["two_tower", "per_feature", "row_wise", 1], outcome(case))
