"""A model -> a program that runs without the training stack."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from feature_store.durable import written
from feature_store.errors import ConfigError
from recsys.data.batch import Batch
from recsys.embeddings.options import QuantisationConfig
from recsys.embeddings.plain import PlainEmbeddings
from recsys.embeddings.quantisation import quantise
from recsys.embeddings.tables import Embeddings
from recsys.inputs import REQUESTS
from recsys.model import Model
from recsys.serving.manifest import Quantisation


class _Sink(io.RawIOBase):
    """Where torch writes a program: its writer ends the whole process where a file fails, so it is
    not told, and `check` raises afterwards."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """torch goes back to the beginning when it is done."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Nothing is read or written there."""
        return offset

    def write(self, data: Any) -> int:
        """As if all were well."""
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def check(self) -> None:
        """Raises OSError where anything could not be written."""
        if self._error is not None:
            raise self._error


# what torch.export writes of a node besides its value
_TOLD = {"stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node"}


def on_plain_tables(model: Model) -> Any:
    """A copy of a model whose tables are plain modules."""
    plain = copy.deepcopy(model).eval()
    for parent in list(plain.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Embeddings):
                setattr(parent, name, child.plain())
    return plain


def least_bytes(model: nn.Module, config: QuantisationConfig) -> int:
    """Bytes of a model's weights where tables of fewer bits have as few as there are."""
    fewest = 1 if config.dtype == "fp32" and not config.tables else 8
    return sum(tensor.nbytes for tensor in model.state_dict().values()) // fewest


def quantise_tables(
    plain: nn.Module, config: QuantisationConfig, measure: Callable[[], float], metric: str
) -> Quantisation | None:
    """Quantise the tables of a model on plain tables, in place; None where all stay float32.

    Returns what the manifest says of it. Raises ConfigError for a model without tables.
    """
    if config.dtype == "fp32" and set(config.tables.values()) <= {"fp32"}:
        return None
    tables = [child for child in plain.modules() if isinstance(child, PlainEmbeddings)]
    if not tables:
        raise ConfigError("export.quantisation: this model has no embedding tables")
    return Quantisation(metric=metric, **quantise(tables[0], config, measure))


def export_program(
    program: nn.Module, model: Model, batch: Batch, path: Path, items: Tensor | None = None
) -> None:
    """Export `program`, which reads the tensors of the model's inputs by name, and `items` [B, M]
    where they are given.

    The number of requests, of their items and, for lists, their length stay free.
    """
    shapes = {asked.name: asked.dimensions() for asked in model.inputs}
    inputs = {
        name: _at_least_two(tensor, columns=1 in shapes[name])
        for name, tensor in model.inputs_of(batch).items()
    }
    arguments: tuple[Any, ...] = (inputs,)
    dimensions: tuple[Any, ...] = (shapes,)
    if items is not None:
        arguments = (inputs, _at_least_two(items, columns=True))
        dimensions = (shapes, {0: REQUESTS, 1: torch.export.Dim("items", min=1, max=1 << 20)})
    save_program(program, arguments, dimensions, path)


def save_program(
    program: nn.Module, arguments: tuple[Any, ...], dimensions: tuple[Any, ...], path: Path
) -> None:
    """Export a program that reads such arguments, of which `dimensions` stay free."""
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(program, arguments, dynamic_shapes=dimensions)
        _strip(exported)
        with written(path) as file:
            sink = _Sink(file)
            torch.export.save(exported, sink)  # type: ignore[arg-type]
            sink.check()


def _at_least_two(part: Tensor, *, columns: bool) -> Tensor:
    """Two rows (and `columns`) at least: torch.export would take a 1 for a constant."""
    while len(part) < 2:
        part = torch.cat([part, part])
    if columns and part.dim() == 2 and part.shape[1] < 2:
        part = torch.cat([part, part], dim=1)
    return part


def _strip(exported: torch.export.ExportedProgram) -> None:
    """Take out what serving does not read: sample inputs, which are kept as a pickle, guards, which
    are Python code, weights of no operator, such as tables of which a frozen model has made all it
    needs, and where in our files each operator comes from."""
    exported.example_inputs = None
    vars(exported).update(_guards_code=[])
    _drop_unread(exported)
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for told in _TOLD.intersection(node.meta):
                    del node.meta[told]


def _drop_unread(exported: torch.export.ExportedProgram) -> None:
    graph, signature = exported.graph, exported.graph_signature
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for given in list(signature.input_specs):
        node = nodes[given.arg.name]
        if given.kind == InputKind.USER_INPUT or node.users:
            continue
        graph.erase_node(node)
        signature.input_specs.remove(given)
        for kept in (exported.state_dict, exported.constants):
            kept.pop(given.target, None)
    exported.graph_module.recompile()
