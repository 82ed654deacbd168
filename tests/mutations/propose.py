"""Small changes to files, one at each place, as JSON lines: `python propose.py SEED FILE ...`.

Runs in an environment of its own, with cosmic-ray, whose operators make the changes. Left out is
what changes no behaviour: annotations, and the texts of docstrings and errors.
"""

from __future__ import annotations

import ast
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

_ALIKE = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod"},
    {"BitAnd", "BitOr", "BitXor"},
    {"LShift", "RShift"},
)


def changes(source: str, rng: random.Random) -> Iterator[tuple[int, str, str]]:
    """Line, operator and changed source of one random change at each place."""
    tree, places = get_ast(source), defaultdict(list)
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments() or not _plausible(name):
            continue
        operator, occurrence = kind(), 0
        for node in ast_nodes(tree):
            for start, end in operator.mutation_positions(node):
                places[start, end].append((name, operator, occurrence))
                occurrence += 1
    meaning = behaviour(source)
    for (start, _), candidates in sorted(places.items()):
        rng.shuffle(candidates)
        for name, operator, occurrence in candidates:
            changed = mutate_code(source, operator, occurrence)
            if changed is not None and behaviour(changed) not in (meaning, ""):
                yield start[0], name.partition("/")[2], changed
                break


def _plausible(name: str) -> bool:
    """Whether a reader could make the mistake: a shift for a sum falls over at once. That which
    replaces exceptions falls over where several are caught."""
    if name.endswith("ExceptionReplacer"):
        return False
    if "BinaryOperator" not in name:
        return True
    return any(set(name.split("_")[1:]) <= kind for kind in _ALIKE)


def behaviour(source: str) -> str:
    """What a file does; empty where it cannot be read."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    return ast.dump(_Bare().visit(tree))


class _Bare(ast.NodeTransformer):
    """Without annotations, and without what a `raise` says."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if (
            any(
                isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr)
                for part in ast.walk(node.value)
            )
            and names
            and names[0][0].isupper()
        ):
            node.value = ast.Constant(None)  # an alias of types
        return self.generic_visit(node)


if __name__ == "__main__":
    rng = random.Random(int(sys.argv[1]))
    for path in sys.argv[2:]:
        source = Path(path).read_text()
        for line, operator, changed in changes(source, rng):
            print(json.dumps({"file": path, "line": line, "operator": operator, "source": changed}))
