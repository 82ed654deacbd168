"""Sizes that depend on a request, as torch.export writes them: Mul(Integer(2), Symbol('s5')).

torch hands such text to a symbolic evaluator, which runs whatever Python stands there. So it is
parsed here first, and holds nothing but sums, products and the like of whole numbers and symbols.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from recsys.serving.grammar import Refused, shown

SYMBOL = re.compile(r"[su]\d{1,4}")
_LONGEST = 2000  # characters
_LARGEST = 2**63
_LARGEST_POWER = 8  # a power of a power is a way to run forever
_FUNCTIONS = {
    *("Add", "Mul", "Min", "Max", "Mod", "FloorDiv", "CeilDiv", "CleanDiv", "PythonMod"),
    *("Equality", "Unequality", "LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan"),
    *("And", "Or", "Not"),
}
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "real"}


def check_size(text: Any, where: str) -> None:
    """Raises Refused for what is not an expression of sizes."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise Refused(where, f"is {shown(text)}, no expression of sizes")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Refused(where, f"is {shown(text)}, no expression of sizes") from None
    if not _is_size(tree.body, powers=True):
        raise Refused(where, f"is {shown(text)}, which is more than an expression of sizes")


def _is_size(node: ast.AST, powers: bool) -> bool:
    match node:
        case ast.Call(ast.Name("Symbol"), [ast.Constant(str(name))], keywords):
            return SYMBOL.fullmatch(name) is not None and all(
                keyword.arg in _ASSUMPTIONS
                and isinstance(keyword.value, ast.Constant)
                and isinstance(keyword.value.value, bool)
                for keyword in keywords
            )
        case ast.Call(ast.Name("Integer"), [number], []):
            return _is_number(number, _LARGEST)
        case ast.Call(ast.Name("Pow"), [base, ast.Call(ast.Name("Integer"), [number], [])], []):
            return powers and _is_number(number, _LARGEST_POWER) and _is_size(base, powers=False)
        case ast.Call(ast.Name(name), [_, *_] as arguments, []):
            return name in _FUNCTIONS and all(_is_size(node, powers) for node in arguments)
        case ast.Name(name):
            return name in ("true", "false")
    return False


def _is_number(node: ast.AST, largest: int) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= largest
