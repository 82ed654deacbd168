"""The figures of the house; `python tests/house.py` prints them."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("feature_store", "recsys", "pipelines")
EMPTY_NAMES = {"found", "one"}  # they name anything, hence nothing
SHORT = 10  # lines of a function in which such a name is still seen whole
LONG = 60
OWN = {"self", "cls"}

# what runs whatever a file names, or may: only the reader that looks before it calls has one
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "read_pickle", "to_pickle", "unsafe_load", "load_module"}
LOOKS_BEFORE = "recsys/training/metadata.py"
MOMENTS = "recsys/tracking.py"  # when a metric was measured, as MLflow wants it

Function = ast.FunctionDef | ast.AsyncFunctionDef


def product_files(*packages: str) -> list[Path]:
    """The product's modules."""
    return sorted(path for name in packages or PRODUCT for path in (ROOT / name).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[Function]:
    """Every function of a file, methods and inner ones included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Lines, from `def` to the last one."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def empty_names() -> list[str]:
    """Where a function of more than ten lines has a variable that is called anything."""
    places = set()
    for path in product_files():
        for function in functions(path):
            if length(function) <= SHORT:
                continue
            arguments = ast.walk(function.args)
            names = {node.arg for node in arguments if isinstance(node, ast.arg)}
            names |= {
                node.id
                for node in ast.walk(function)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
            for name in names & EMPTY_NAMES:
                places.add(f"{_place(path, function)} {function.name}: {name}")
    return sorted(places)


def foreign_private_writes() -> list[str]:
    """Where a private attribute of another object is written."""
    places = []
    for path in product_files():
        for node in ast.walk(tree_of(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and node.attr.startswith("_")
                and not (isinstance(node.value, ast.Name) and node.value.id in OWN)
            ):
                places.append(f"{_place(path, node)} {ast.unparse(node)}")
    return places


def unsafe_reads() -> list[str]:
    """Where a file could say what is run: pickles of any kind, `torch.load` of more than weights,
    arrays of objects, code in texts."""
    places = []
    for path in product_files():
        if path.relative_to(ROOT).as_posix() == LOOKS_BEFORE:
            continue
        for node in ast.walk(tree_of(path)):
            if _unsafe(node):
                places.append(f"{_place(path, node)} {ast.unparse(node)[:60]}")
    return places


def clocks_that_jump() -> list[str]:
    """Where seconds are read off a clock that people, and time servers, set: what takes how long is
    told by `time.monotonic` or `time.perf_counter`, and moments of others are `datetime`s."""
    return [
        _place(path, node)
        for path in product_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.time", "time.time_ns")
        if path != ROOT / MOMENTS
    ]


def _unsafe(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in UNSAFE_MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in UNSAFE_MODULES
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called in ("torch.load", "torch.jit.load"):
        return given.get("weights_only") != "True"
    if called in ("yaml.load", "yaml.full_load"):
        return True
    plain_name = isinstance(node.func, ast.Name) or called.startswith(
        ("pd.", "pandas.", "builtins.")
    )
    unsafe_name = plain_name and called.rpartition(".")[2] in UNSAFE_CALLS
    return unsafe_name or given.get("allow_pickle", "False") != "False"


def _place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'lineno', 0)}"


def figures() -> dict[str, object]:
    """What a look at the whole house says."""
    lines = {path: len(path.read_text().splitlines()) for path in product_files()}
    longest = max(lines, key=lambda path: lines[path])
    long_functions = [f for path in lines for f in functions(path) if length(f) > LONG]
    loose = [p for p in (ROOT / "recsys").glob("*.py") if p.name != "__init__.py"]
    return {
        "files": len(lines),
        "median lines of a file": statistics.median(lines.values()),
        "longest file": f"{longest.relative_to(ROOT).as_posix()}, {lines[longest]} lines",
        f"functions of more than {LONG} lines": len(long_functions),
        "loose modules in recsys/": len(loose),
        "lines in pipelines/": sum(lines[path] for path in product_files("pipelines")),
        "functions with a variable called found or one": len(empty_names()),
        "private attributes of others written": len(foreign_private_writes()),
    }


if __name__ == "__main__":
    for name, value in figures().items():
        print(f"{name}: {value}")
    for place in (*empty_names(), *foreign_private_writes()):
        print(place)
