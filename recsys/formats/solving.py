"""Linear equations in ONNX, which has no operator for them."""

from __future__ import annotations

from typing import Any

from onnxscript import FLOAT, opset18, script

op: Any = opset18  # numbers become tensors within a script, which its types do not say


@script()
def _eliminated(table: FLOAT[...]) -> FLOAT[...]:  # type: ignore[type-arg,misc]
    """[B, D, D + 1] of matrices and their right sides -> [B, D, D + 1] of ones and solutions: the
    elimination of Gauss and Jordan, each column by its largest pivot.

    The loop is a single node of the graph, whatever D is.
    """
    shape = op.Shape(table)
    width = op.Squeeze(op.Slice(shape, [1], [2]))
    rows = op.Unsqueeze(op.Range(0, width, 1), [0])  # [1, D]
    for step in range(width):
        column = op.Gather(table, step, axis=2)  # [B, D]
        left = op.Where(op.Less(rows, step), op.CastLike(-1.0, column), op.Abs(column))
        pivot = op.ArgMax(left, axis=1, keepdims=1)  # [B, 1]
        here = op.Equal(rows, step)
        order = op.Where(here, pivot, op.Where(op.Equal(rows, pivot), step, rows))  # [B, D]
        table = op.GatherElements(table, op.Expand(op.Unsqueeze(order, [2]), shape), axis=1)
        row = op.Unsqueeze(op.Gather(table, step, axis=1), [1])  # [B, 1, D + 1]
        column = op.Unsqueeze(op.Gather(table, step, axis=2), [2])  # [B, D, 1]
        row = op.Div(row, op.Unsqueeze(op.Gather(op.Squeeze(row, [1]), step, axis=1), [1, 2]))
        table = op.Where(op.Unsqueeze(here, [2]), row, op.Sub(table, op.Mul(column, row)))
    return table


def solve(matrices: Any, right: Any, *, left: bool = True) -> Any:
    """torch.linalg.solve of matrices [B, D, D] and right sides [B, D]: [B, D].

    Raises ValueError for right sides of another shape, which no model has.
    """
    if len(right.shape) != 2 or not left:
        raise ValueError("linear equations are translated for one right side of each matrix")
    table = op.Concat(matrices, op.Unsqueeze(right, [2]), axis=2)
    return op.Gather(_eliminated(table), -1, axis=2)
