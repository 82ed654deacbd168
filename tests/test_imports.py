"""Imports point one way: feature_store <- recsys <- pipelines; serving needs no training stack."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING_STACK = ("torchrec", "fbgemm_gpu")

# the one place where the library calls a program, inside a function: see recsys/__init__.py
ALLOWED = {("recsys/__init__.py", "pipelines.run")}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, anywhere in it, and whether that is at the top level."""
    tree = ast.parse(path.read_text())
    top = set(ast.iter_child_nodes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the direction"
            yield node.module or "", node in top


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


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


def test_the_one_exception_is_not_imported_before_it_is_called() -> None:
    found = dict(imports(ROOT / "recsys" / "__init__.py"))
    assert found["pipelines.run"] is False


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("feature_store.examples", ("torch", "recsys", "mlflow")),
        ("feature_store.ingest", ("torch", "recsys", "mlflow")),
        ("recsys", ("torch", "pipelines", *TRAINING_STACK)),
        ("recsys.serving.recommender", (*TRAINING_STACK, "pipelines", "mlflow")),
    ],
)
def test_importing_one_thing_does_not_load_another(module: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*(m for m in {absent} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
