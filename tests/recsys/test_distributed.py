"""Two processes train, measure and save what one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance import TRAINED, shape_of
from feature_store.examples import Shape
from recsys.examples import Examples
from recsys.retrievers import BY_NAME
from recsys.training.distributed import join
from workers.train import CHECKPOINT_STEP, Case, outcome, work

TESTS = Path(__file__).resolve().parent
TIMEOUT = 150  # seconds: a process that waits for another for ever must not hold up the tests
TABLES = [("per_feature", False), ("per_feature", True), ("unified", True)]
VARIANTS = [(name, *tables) for name in TRAINED for tables in TABLES]
VARIANTS += [(name, "per_feature", False) for name in BY_NAME if name not in TRAINED]
Runs = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def runs(planted: dict[Shape, Examples], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Outcomes by variant and way: alone, together, and each gone on from the other's checkpoint.

    All that two processes do, they do in one start: imports take longer than the rest.
    """
    root = tmp_path_factory.mktemp("distributed")
    cases = {
        (_id(variant), way): Case(
            *variant,
            examples=str(planted[shape_of(variant[0])].folder),
            folder=str(root / _id(variant) / way),
        )
        for variant in VARIANTS
        for way in ("alone", "together", "one_to_two", "two_to_one")
        if variant[0] in TRAINED or way in ("alone", "together")
    }

    def of(*ways: str) -> list[Case]:
        return [case for (_, way), case in cases.items() if way in ways]

    with join("cpu") as group:
        for case in of("alone"):
            work(case, group)
        for case in of("one_to_two"):
            _hand_over(replace(case, folder=str(Path(case.folder).parent / "alone")), case)
        _torchrun(of("together", "one_to_two"), root)
        for case in of("two_to_one"):
            _hand_over(replace(case, folder=str(Path(case.folder).parent / "together")), case)
            work(case, group)
    return {key: outcome(case) for key, case in cases.items()}


def _id(variant: tuple[str, str, bool]) -> str:
    name, layout, sharded = variant
    return f"{name}-{layout}-{'sharded' if sharded else 'replicated'}"


def _hand_over(giver: Case, taker: Case) -> None:
    checkpoint = f"checkpoints/step-{CHECKPOINT_STEP:09d}"
    shutil.copytree(Path(giver.folder) / checkpoint, Path(taker.folder) / checkpoint)


def _torchrun(cases: list[Case], root: Path) -> None:
    spec = root / "cases.json"
    spec.write_text(json.dumps([asdict(case) for case in cases]))
    program = [str(TESTS / "workers" / "train.py"), str(spec)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    path = os.pathsep.join([str(TESTS), str(TESTS.parents[1])])
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", *program],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.fixture(params=[_id(variant) for variant in VARIANTS])
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_two_processes_train_as_one(runs: Runs, variant: str) -> None:
    alone, together = runs[variant, "alone"], runs[variant, "together"]
    torch.testing.assert_close(together["losses"], alone["losses"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together["vectors"], alone["vectors"], atol=1e-4, rtol=1e-4)
    assert together["validation"] == pytest.approx(alone["validation"], abs=1e-4)
    learns = not variant.startswith(tuple(TRAINED)) or alone["losses"][-1] < alone["losses"][0]
    assert learns and len(alone["losses"]) in (0, 16)


def test_two_processes_measure_as_one(runs: Runs, variant: str) -> None:
    alone, together = runs[variant, "alone"], runs[variant, "together"]
    assert together["metrics"] == pytest.approx(alone["metrics"], abs=1e-4)
    assert sorted(together["users"]) == sorted(alone["users"])
    assert len(set(together["users"])) == len(together["users"])


@pytest.mark.parametrize("name", [_id(one) for one in VARIANTS if one[0] in TRAINED])
@pytest.mark.parametrize("way", ["one_to_two", "two_to_one"])
def test_a_checkpoint_goes_on_with_another_number_of_processes(
    runs: Runs, name: str, way: str
) -> None:
    alone, other = runs[name, "alone"], runs[name, way]
    rest = alone["losses"][CHECKPOINT_STEP:]
    torch.testing.assert_close(other["losses"], rest, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other["vectors"], alone["vectors"], atol=1e-4, rtol=1e-4)
    assert other["metrics"] == pytest.approx(alone["metrics"], abs=1e-4)
