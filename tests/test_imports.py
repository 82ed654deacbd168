"""Imports point one way: feature_store <- recsys <- pipelines, and within each from floor to floor.

A room is a folder or a loose module; what stands on one floor may import what stands below it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING_STACK = ("torchrec", "fbgemm_gpu")

# From the ground up. Rooms on one floor know nothing of each other.
FLOORS = {
    "feature_store": (
        (
            "errors",
            "columns",
            "file_names",
            "hashing",
            "ids",
            "leftovers",
            "options",
            "progress",
            "trees",
        ),
        ("storage",),
        ("times", "parquet", "in_lists"),
        ("schema", "conform", "durable", "engine", "vocabulary"),
        ("event_log", "sources", "transfer"),
        ("catalogue", "timeline", "compaction", "by_user"),
        ("protocols", "labels", "ingest"),
        ("splits", "negatives"),
        ("money",),
        ("examples",),
    ),
    "recsys": (
        ("members",),
        ("inputs", "options", "figure", "distributed", "statistics", "doctor", "tracking"),
        ("lists", "embeddings", "layers", "text"),
        ("serving", "data"),
        ("explorer", "formats", "online", "policy"),
        ("server",),
        ("model",),
        ("objectives",),
        ("retrievers", "rankers", "training"),
        ("cascade", "evaluation", "tuning", "daily"),
        ("compatible",),
        ("export", "config"),
        ("runs",),
        ("report",),
    ),
}

# the one place where the library calls a program, inside a function: see recsys/__init__.py
ALLOWED = {("recsys/__init__.py", "pipelines.run")}

# Who may know that there are several processes; everything else sees batches, lists and tables.
KNOW_OF_PROCESSES = {
    "pipelines/cli/together.py",
    "recsys/distributed.py",
    "recsys/doctor.py",
    "recsys/embeddings/tables.py",
    "recsys/layers/dice.py",
    "recsys/objectives/objective.py",
    "recsys/evaluation/evaluator.py",
    "recsys/evaluation/predictions.py",
    "recsys/members.py",
    "recsys/runs/calibration.py",
    "recsys/runs/evaluators.py",
    "recsys/runs/fit.py",
    "recsys/runs/learn.py",
    "recsys/runs/learnt.py",
    "recsys/runs/lock.py",
    "recsys/runs/prepare.py",
    "recsys/runs/teacher.py",
    "recsys/runs/work.py",
    "recsys/training/background.py",
    "recsys/training/checkpoint.py",
    "recsys/training/growth.py",
    "recsys/training/metadata.py",
    "recsys/training/sharding.py",
    "recsys/training/trainer.py",
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, anywhere in it, and whether that is at the top level.

    `from package import module` names the module.
    """
    tree = ast.parse(path.read_text())
    top = set(ast.iter_child_nodes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the direction"
            package = ROOT.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                below = (package / f"{alias.name}.py").exists() or (package / alias.name).is_dir()
                yield (f"{node.module}.{alias.name}" if below else node.module or ""), node in top


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def room_of(path: Path, package: str) -> str:
    """The folder of a package, or the module, that a file stands in."""
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """The dotted name of a module; of an `__init__.py` the package's."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("feature_store", {"torch", *TRAINING_STACK, "recsys", "pipelines", "mlflow", "tests"}),
        ("recsys", {"pipelines", "tests"}),
        ("pipelines", {"tests"}),
    ],
)
def test_packages_import_only_what_lies_below_them(package: str, forbidden: set[str]) -> None:
    wrong = {
        (path.relative_to(ROOT).as_posix(), module)
        for path in files(package)
        for module, _ in imports(path)
        if module.split(".")[0] in forbidden
    }
    assert wrong - ALLOWED == set()


@pytest.mark.parametrize("package", FLOORS)
def test_no_import_runs_up_or_along_a_floor(package: str) -> None:
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}
    rooms = {
        path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in files(package)
    }
    assert rooms - {"__init__"} == set(floor), "every folder and loose module has its floor"
    wrong = []
    for path in files(package):
        own = room_of(path, package)
        for module, _ in imports(path):
            parts = module.split(".")
            if parts[0] != package or own == "__init__" or len(parts) == 1 or parts[1] == own:
                continue
            if floor[parts[1]] >= floor[own]:
                wrong.append((path.relative_to(ROOT).as_posix(), module))
    assert wrong == []


def test_no_circle() -> None:
    paths = {name_of(path): path for package in FLOORS for path in files(package)}
    edges = {
        name: {module for module, _ in imports(path) if module in paths and module != name}
        for name, path in paths.items()
        if name != "recsys"  # its functions open what lies above them, when they are called
    }
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_but_the_engine_names_what_computes_tables() -> None:
    naming = {
        path.relative_to(ROOT).as_posix()
        for package in (*FLOORS, "pipelines", "benchmarks")
        for path in files(package)
        if "duckdb" in path.read_text().lower()
    }
    assert naming == {
        "feature_store/engine/config.py",
        "feature_store/engine/embedded.py",
    }


def test_only_named_files_know_of_several_processes() -> None:
    knowing = {
        path.relative_to(ROOT).as_posix()
        for package in (*FLOORS, "pipelines")
        for path in files(package)
        for module, _ in imports(path)
        if module.startswith(("recsys.distributed", "torch.distributed"))
    }
    assert knowing == KNOW_OF_PROCESSES


def test_the_one_exception_is_not_imported_before_it_is_called() -> None:
    found = dict(imports(ROOT / "recsys" / "__init__.py"))
    assert found["pipelines.run"] is False


def test_nobody_asks_of_which_kind_a_model_is() -> None:
    """What differs between retrievers, or rankers, is said by their contracts."""
    models = (
        "recsys.model",
        "recsys.rankers",
        "recsys.retrievers",
        "recsys.evaluation.given_lists",
    )
    asked = []
    evaluator = ROOT / "recsys" / "evaluation" / "evaluator.py"
    for path in (*files("pipelines"), *files("recsys/runs"), evaluator):
        tree = ast.parse(path.read_text())
        kinds = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(models)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                names = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                asked += [f"{path.name}:{node.lineno}"] * bool(names & kinds)
    assert asked == []


ABSENT = {
    "feature_store.examples": ("torch", "recsys", "mlflow"),
    "feature_store.ingest": ("torch", "recsys", "mlflow"),
    "recsys": ("torch", "pipelines", *TRAINING_STACK),
    "recsys.serving.recommender": (*TRAINING_STACK, "pipelines", "mlflow", "recsys.export"),
    "recsys.serving.scorer": (*TRAINING_STACK, "pipelines", "mlflow", "recsys.export"),
    "recsys.online.places": ("torch", "redis", "ibis", "pipelines", "mlflow"),
    "recsys.formats.convert, recsys.formats.load": (
        *(*TRAINING_STACK, "pipelines", "mlflow", "recsys.export"),
        *("onnx", "psycopg", "lancedb"),
    ),
    "recsys.text.vectors, recsys.text.tokenise": (
        *(*TRAINING_STACK, "pipelines", "recsys.data", "tokenizers", "transformers"),
    ),
    "recsys.server.run": (*TRAINING_STACK, "pipelines", "mlflow", "recsys.export"),
}
IN_FORKS = """
import json, os, sys
{first}
for imported, absent in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        exec(f"import {imported}")
        print(json.dumps([imported, [m for m in absent if m in sys.modules]]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, imported
"""


@cache
def loaded(after: str) -> dict[str, list[str]]:
    """What should be absent and is there, by what was imported, each in a process of its own; those
    that may import torch are forked from one that has, which takes longer than the rest."""
    asked = {
        module: absent for module, absent in ABSENT.items() if ("torch" in absent) == (after == "")
    }
    program = IN_FORKS.replace("{first}", after)
    command = [sys.executable, "-c", program, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("module", ABSENT)
def test_importing_one_thing_does_not_load_another(module: str) -> None:
    assert loaded("" if "torch" in ABSENT[module] else "import torch")[module] == []
