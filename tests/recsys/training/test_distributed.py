"""Several processes train, measure and save what one does, wherever the tables lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader

from conformance import LAYOUTS, TRAINED, fresh, shape_of, small
from feature_store.event_log import EventLog
from planted import Shape, write_planted
from recsys import rankers
from recsys.data.examples import Examples
from recsys.retrievers import RETRIEVERS
from recsys.training import checkpoint
from workers.train import (
    AWARE,
    CHECKPOINT_STEP,
    EPOCH,
    EVICTING,
    HOSTS,
    PLACEMENTS,
    Case,
    outcome,
)

TESTS = Path(__file__).resolve().parents[1]
WORKER = str(TESTS / "workers" / "train.py")
TIMEOUT = 540  # seconds: a process that waits for another for ever must not hold up the tests
pytestmark = pytest.mark.timeout(TIMEOUT + 60)  # all processes, in one test
LEARNING = [*TRAINED, *rankers.RANKERS]
# (model, layout, placement): every layout of every model, every placement of each table kind; one
# table for all has hashed rows as those of a feature's own are, which are told apart by three
HASHED = ("sasrec", "two_tower", "dcn")
VARIANTS = [
    (name, layout, "row_wise")
    for name in LEARNING
    for layout in LAYOUTS
    if layout != "hashed" or name in HASHED
]
VARIANTS += [(name, "per_feature", "replicated") for name in LEARNING]
VARIANTS += [
    (name, "per_feature", placement)
    for name in ("two_tower", *rankers.RANKERS)
    for placement in PLACEMENTS
    if placement not in ("row_wise", "replicated")
]
VARIANTS += [(name, "per_feature", "replicated") for name in RETRIEVERS if name not in TRAINED]
VARIANTS += [("dcn", "per_feature", placement) for placement in (*AWARE, *EVICTING)]
# what one process does with its tables is done once under an optimizer
ALONE = {"table_wise": "row_wise", "planned": "column_wise"}
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
    ("dcn", "row_wise_evicting", 2, 1, "row_wise_evicting"),
    ("dcn", "row_wise_evicting", 1, 2, "row_wise_evicting"),
    ("dcn", "replicated_evicting", 1, 2, "replicated_evicting"),
]
Outcomes = dict[tuple[Any, ...], dict[str, Any]]


def case_of(
    root: Path, planted: dict[Shape, Examples], model: str, layout: str, placement: str, way: str
) -> Case:
    name = f"{model}-{layout}-{placement}-{way}"
    examples = str(planted[shape_of(model)].folder)
    if placement in EVICTING:
        examples = str(root / "keyed")
    return Case(model, layout, placement, examples, str(root / name))


@pytest.fixture(scope="module")
def root(planted_log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    write_planted(planted_log, folder / "keyed", "labelled", keyed=("user_id",))
    return folder


@pytest.fixture(scope="module")
def outcomes(planted: dict[Shape, Examples], root: Path) -> Outcomes:
    """Of every variant on one process and on two, by (variant, processes), and of every training
    that went on from a checkpoint of N processes on M, by its way.
    """
    keys = [key for variant in VARIANTS for key in (alone(variant), (*variant, 2))]
    trained = {key: case_of(root, planted, *key[:3], f"on{key[3]}") for key in keys}
    for model, placement, saved, _, _ in ELASTIC:
        key = model, "per_feature", placement, saved
        trained.setdefault(key, case_of(root, planted, *key[:3], f"on{saved}"))
    moved: dict[tuple[Any, ...], Case] = {}
    for way in ELASTIC:
        model, placement, saved, loaded, then = way
        name = f"from-{placement}-on{saved}-to-on{loaded}"
        taker = case_of(root, planted, model, "per_feature", then, name)
        giver = trained[model, "per_feature", placement, saved].folder
        moved[way] = replace(taker, giver=giver)
    starts = [
        (world, [case for key, case in trained.items() if key[3] == world]) for world in (1, 2, 4)
    ] + [(world, [case for key, case in moved.items() if key[3] == world]) for world in (1, 2, 4)]
    hosts = case_of(root, planted, "two_tower", "per_feature", "row_wise", HOSTS)
    spec = root / "starts.json"
    every = [*starts, (HOSTS, [hosts])]
    spec.write_text(json.dumps([(n, [asdict(case) for case in cases]) for n, cases in every]))
    done = subprocess.run(
        [sys.executable, WORKER, spec],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    every_case = trained | moved | {(HOSTS,): hosts}
    return {key: outcome(case) for key, case in every_case.items()}


def alone(variant: tuple[str, str, str]) -> tuple[str, str, str, int]:
    """The training by one process that a variant must equal."""
    model, layout, placement = variant
    return model, layout, ALONE.get(placement, placement), 1


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parents[1])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def assert_same(one: dict[str, Any], other: dict[str, Any], skipped: int = 0) -> None:
    """Equal within float noise, from the step on that `other` began with."""
    losses = one["losses"][skipped:]
    torch.testing.assert_close(other["losses"], losses, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other["answers"], one["answers"], atol=1e-4, rtol=1e-4)
    # items that score alike but for rounding may change places, which Gini sees
    assert other["metrics"] == pytest.approx(one["metrics"], abs=1e-4, rel=3e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_two_processes_train_and_measure_as_one(
    outcomes: Outcomes, variant: tuple[str, str, str]
) -> None:
    single, together = outcomes[alone(variant)], outcomes[*variant, 2]
    assert_same(single, together)
    assert together["validation"] == pytest.approx(single["validation"], abs=1e-4)
    if variant[0] in LEARNING:
        assert len(single["losses"]) == 2 * EPOCH
        assert single["losses"][EPOCH:].mean() < single["losses"][:EPOCH].mean()


@pytest.mark.parametrize("model", ["two_tower", "dcn"])
def test_where_tables_lie_changes_nothing(outcomes: Outcomes, model: str) -> None:
    """Under the same optimizer: by rows, by tables, by columns, or as planned."""
    for one, other in (("row_wise", "table_wise"), ("column_wise", "planned")):
        key = model, "per_feature"
        assert_same(outcomes[*key, one, 2], outcomes[*key, other, 2])


@pytest.mark.parametrize("placement", AWARE)
def test_mini_batch_aware_decay_moves_what_both_train(outcomes: Outcomes, placement: str) -> None:
    """Else that two processes train as one would say nothing of it."""
    key = "dcn", "per_feature"
    plain, aware = outcomes[*key, AWARE[placement], 2], outcomes[*key, placement, 2]
    assert (plain["answers"] - aware["answers"]).abs().max() > 1e-3


@pytest.mark.parametrize("way", ELASTIC, ids=lambda way: "-".join(map(str, way)))
def test_a_checkpoint_goes_on_elsewhere(
    outcomes: Outcomes, way: tuple[str, str, int, int, str]
) -> None:
    model, placement, saved, loaded, then = way
    whole, rest = outcomes[model, "per_feature", placement, saved], outcomes[way]
    assert_same(whole, rest, CHECKPOINT_STEP)
    if saved == loaded and placement == then:  # the same machine: bit for bit
        assert torch.equal(rest["losses"], whole["losses"][CHECKPOINT_STEP:])
        assert torch.equal(rest["answers"], whole["answers"])


@pytest.mark.parametrize("way", [way for way in ELASTIC if way[1] in EVICTING], ids=str)
def test_every_key_keeps_its_row_and_its_vector_elsewhere(
    outcomes: Outcomes, root: Path, planted: dict[Shape, Examples], way: tuple[Any, ...]
) -> None:
    """Of a checkpoint of N processes that M have loaded and saved at once; with what optimizers
    know of each row."""
    model, placement, saved, loaded, then = way
    key = model, "per_feature"
    giver = case_of(root, planted, *key, placement, f"on{saved}")
    taker = case_of(root, planted, *key, then, f"from-{placement}-on{saved}-to-on{loaded}")
    folders = (
        Path(giver.folder) / f"checkpoints/step-{CHECKPOINT_STEP:09d}",
        Path(taker.folder) / "moved",
    )
    examples = Examples(giver.examples)
    states, moments = [], []
    for folder, case in zip(folders, (giver, taker), strict=True):
        one = fresh(small(model), examples, case.config(examples))
        assert checkpoint.load_unsharded(folder, one)["world"] == (saved, loaded)[len(states)]
        states.append(one.state_dict())
        moments.append(_moments(folder, "user_id"))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], of) for name, of in states[0].items())
    keys = states[0]["embeddings.maps.managed.user_id.keys"]
    assert (keys < 2**63 - 1).sum() == 39  # of 120 users that came
    assert moments[0].keys() == moments[1].keys() != set()
    assert all(torch.equal(moments[1][name], of) for name, of in moments[0].items())


def _moments(folder: Path, table: str) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of optimizers for a table, whole."""
    reader = FileSystemReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    wanted = {
        name: torch.empty(of.size, dtype=of.properties.dtype)
        for name, of in stored.items()
        if name.startswith("optimizer.") and f".{table}." in name and hasattr(of, "size")
    }
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    return wanted


def test_two_hosts_find_each_other_and_train_as_one(outcomes: Outcomes) -> None:
    """Two of torchrun's agents with a rendezvous on loopback, as on two machines."""
    assert_same(outcomes["two_tower", "per_feature", "row_wise", 1], outcomes[(HOSTS,)])
