"""A part's program as ONNX, for onnxruntime and whatever else reads that."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.formats.dimensions import shapes_of
from recsys.formats.extras import needed
from recsys.formats.source import GeneratorSource, Run, Source

WHAT = "a program as ONNX"
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_OPERATOR = re.compile(r"aten\.\w+(?:\.\w+)?|OpOverload\(op='(?P<op>[\w.]+)'")


def write_onnx(source: Source, folder: Path) -> list[str]:
    """Write `user.onnx` or `ranker.onnx`, and ask it the golden requests in onnxruntime.

    Tables of int8 and fewer bits stay as they are, and are dequantised by the program. Weights
    above 2 GB lie in a file beside it. Returns the names of the files.

    Raises:
        DataError: an operator has no translation, or an answer differs.
        ConfigError: a package is not installed.
    """
    needed("onnx", WHAT)
    needed("onnxscript", WHAT)
    path = folder / f"{source.stem}.onnx"
    with _silent():
        program = _translated(source)
        _rename(program.model.graph, source)
        program.model.metadata_props.update(_told(source))
        program.save(path)
    source.check(open_onnx(path), f"the ONNX program of {source.model}")
    return sorted(file.name for file in folder.glob(f"{path.name}*"))


def open_onnx(path: Path, threads: int = 0) -> Run:
    """A program in onnxruntime, which takes tensors by name. `threads` 0 takes all cores."""
    runtime = needed("onnxruntime", WHAT)
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [read.name for read in session.get_inputs()]

    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        answers = session.run(None, {name: inputs[name].numpy() for name in names})
        return tuple(map(torch.from_numpy, answers))

    return run


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operators that torch cannot translate, and ours can."""
    from recsys.formats.solving import solve

    return {torch.ops.aten.linalg_solve.default: solve}


def _translated(source: Source) -> Any:
    try:
        return torch.onnx.export(
            source.exported(),
            dynamo=True,
            verbose=False,
            custom_translation_table=translations(),
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise DataError(
            f"the {source.record.noun} {source.name} of {source.bundle.folder}, {source.model}, "
            f"cannot be written as ONNX: {_reason(error)}: --to aotinductor can write it"
        ) from None


def _told(source: Source) -> dict[str, str]:
    """What a file says of itself that was parted from its folder."""
    told = {"part": source.name, "model": source.model, "run": source.record.about.run}
    return told | ({"space": source.record.space} if isinstance(source, GeneratorSource) else {})


def _reason(error: BaseException) -> str:
    """What stands at the bottom of torch's pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    if (named := _OPERATOR.search(text)) is not None:
        return f"the operator {named['op'] or named[0]} has no translation"
    return text[:200]


def _rename(graph: Any, source: Source) -> None:
    """Give tensors and their free dimensions the names that people know, and not those of torch's
    symbols."""
    shapes = shapes_of(source)
    symbols = {
        str(symbol.value): free
        for value, (_, shape) in zip(graph.inputs, shapes.items(), strict=True)
        for symbol, free in zip(value.shape, shape, strict=True)
        if isinstance(free, str)
    }
    for value, name in zip(graph.inputs, shapes, strict=True):
        value.name = name
    for value, name in zip(graph.outputs, source.outputs, strict=True):
        value.name = name
    made = (value for node in graph.all_nodes() for value in node.outputs)
    for value in (*graph.inputs, *made):
        for place, symbol in enumerate(value.shape or ()):
            name = str(getattr(symbol, "value", symbol))
            if name in symbols:
                value.shape[place] = symbols[name]


@contextmanager
def _silent() -> Iterator[None]:
    """Without what translators say to those who work on them."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
