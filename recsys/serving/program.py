"""Opens exported programs, and runs nothing on the way that a file brings.

An archive of torch.export may hold pickles (sample inputs, weights, constants, objects), shared
libraries, Python expressions (guards, sizes) and names that end up in generated Python code; torch
reads all of them in good faith. Ours hold tensors as bytes, and a graph of arithmetic: whatever
else stands in an archive is refused before torch sees it.
"""

from __future__ import annotations

import json
import keyword
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from feature_store.errors import DataError
from recsys.serving.grammar import (
    Check,
    Refused,
    a,
    listed,
    nothing,
    one_of,
    optional,
    record,
    shown,
    table,
    union,
    where_true,
)
from recsys.serving.operators import check_operator
from recsys.serving.sizes import SYMBOL, check_size

_PROGRAM, _SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_PAYLOADS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MEMBERS = re.compile(
    rf"{_PROGRAM}|{_SAMPLE}|{'|'.join(_PAYLOADS)}"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id"
)


def open_program(path: Path) -> torch.nn.Module:
    """The program of an archive that torch.export has written, ready to run.

    Raises DataError as `open_exported`.
    """
    exported = open_exported(path)
    try:
        module = exported.module()
    except Exception as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from None
    module.validate_inputs = False  # type: ignore[assignment]  # inputs make what it reads
    return module


def open_exported(path: Path) -> ExportedProgram:
    """The graph of an archive that torch.export has written, and its weights.

    Raises DataError where it cannot be read, or holds what is no arithmetic of tensors: then
    nothing of it was run.
    """
    try:
        _check_archive(path)
    except Refused as error:
        raise DataError(
            f"{path} holds what a program does not need, and what may run code: {error}; do not "
            "use it, nothing of it was run"
        ) from None
    except Exception as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from None
    from torch.export.pt2_archive._package import load_pt2

    try:
        # not torch.export.load, which goes on with an older format where this one fails
        return load_pt2(str(path)).exported_programs["model"]
    except Exception as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from None


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()) or type(error).__name__)


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        packed = [member.filename for member in archive.infolist() if member.compress_type]
        if packed:
            raise Refused(packed[0], "is compressed")
    reader = torch._C.PyTorchFileReader(str(path))  # the one by which torch reads it afterwards
    for name in reader.get_all_records():
        if not _MEMBERS.fullmatch(name):
            raise Refused(repr(name), "is no part of a program")
    if reader.get_record(_SAMPLE):
        raise Refused(_SAMPLE, "is a pickle of sample inputs")
    for name in _PAYLOADS:
        _PAYLOAD(_json(reader.get_record(name)), name)
    _EXPORTED(_json(reader.get_record(_PROGRAM)), _PROGRAM)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise Refused("a tree", "is nested without end") from None


# -- the grammar of what torch.export writes -------------------------------------------------


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)


def _is_path(value: Any) -> bool:
    """Names of modules, which torch puts between quotation marks."""
    return isinstance(value, str) and not re.search(r"[\"\\\x00-\x1f]", value)


def _check_structure(text: Any, where: str) -> None:
    """How arguments are nested: tuples, lists and dicts by names; others name what to import."""
    a(str)(text, where)
    protocol, tree = _json(text)
    one_of(1)(protocol, where)
    _STRUCTURE(tree, where)


def _check_node(value: Any, where: str) -> None:
    a(dict)(value, where)
    keys = {"builtins.tuple": a(type(None)), "builtins.list": a(type(None))}
    keys["builtins.dict"] = listed(a(str))
    kind = value.get("type")
    if kind is None:
        nothing(value.get("context"), where)
    elif kind in keys:
        a(str)(value.get("context"), where)
        keys[kind](_json(value["context"]), where)
    else:
        raise Refused(where, f"is of type {shown(kind)}")
    listed(_check_node)(value.get("children_spec"), where)


def _check_arguments(value: Any, where: str) -> None:
    _check_node(value, where)
    named = value["children_spec"][1:]
    if value["type"] == "builtins.tuple" and any(n["type"] == "builtins.dict" for n in named):
        nothing(json.loads(named[0]["context"]), where)  # names of keywords become Python code


_INT, _BOOL, _TEXT = a(int), a(bool), a(str)
_FLOAT: Check = where_true(
    lambda value: type(value) in (int, float) or value in ("Infinity", "-Infinity", "NaN"),
    "a number",
)
_NAME = where_true(_is_name, "a name")
_PATH = where_true(_is_path, "a path of names")
_STRUCTURE: Check = _check_arguments
_EXPRESSION = record(
    expr_str=check_size, hint=optional(union(as_int=_INT, as_bool=_BOOL, as_float=_FLOAT))
)
_SIZE = union(as_expr=_EXPRESSION, as_int=_INT)
_TENSOR = record(
    dtype=_INT,
    sizes=listed(_SIZE),
    requires_grad=_BOOL,
    device=record(type=one_of("cpu")),
    strides=listed(_SIZE),
    storage_offset=_SIZE,
    layout=_INT,
)
_TENSOR_NAME = record(name=_NAME)
_NAMED_INT = union(as_name=_NAME, as_int=_INT)
_NAMED_BOOL = union(as_name=_NAME, as_bool=_BOOL)
_NAMED_FLOAT = union(as_name=_NAME, as_float=_FLOAT)
_MAYBE_TENSOR = union(as_tensor=_TENSOR_NAME, as_none=_BOOL)
_ARGUMENT = union(
    as_none=_BOOL,
    as_tensor=_TENSOR_NAME,
    as_tensors=listed(_TENSOR_NAME),
    as_optional_tensor=_MAYBE_TENSOR,
    as_optional_tensors=listed(_MAYBE_TENSOR),
    as_int=_INT,
    as_ints=listed(_INT),
    as_float=_FLOAT,
    as_floats=listed(_FLOAT),
    as_bool=_BOOL,
    as_bools=listed(_BOOL),
    as_string=_TEXT,
    as_sym_int=_NAMED_INT,
    as_sym_ints=listed(_NAMED_INT),
    as_sym_bool=_NAMED_BOOL,
    as_sym_float=_NAMED_FLOAT,
    as_scalar_type=_INT,
    as_memory_format=_INT,
    as_layout=_INT,
    as_device=record(type=one_of("cpu")),
    as_graph=record(name=_NAME, graph=lambda value, where: _GRAPH(value, where)),
)
_NODE = record(
    target=check_operator,
    inputs=listed(
        record(
            name=where_true(lambda name: name == "" or _is_name(name), "a name"),
            arg=_ARGUMENT,
            kind=optional(_INT),
        )
    ),
    outputs=listed(_ARGUMENT),
    is_hop_single_tensor_return=optional(_BOOL),
    name=optional(_NAME),
)
_GRAPH: Check = record(
    inputs=listed(_ARGUMENT),
    outputs=listed(_ARGUMENT),
    nodes=listed(_NODE),
    tensor_values=table(_NAME, _TENSOR),
    sym_int_values=table(_NAME, _SIZE),
    sym_bool_values=table(_NAME, union(as_expr=_EXPRESSION, as_bool=_BOOL)),
    is_single_tensor_return=_BOOL,
)
_CONSTANT = union(as_none=_BOOL, as_int=_INT, as_float=_FLOAT, as_string=_TEXT, as_bool=_BOOL)
_SIGNATURE = record(
    input_specs=listed(
        union(
            user_input=record(arg=_ARGUMENT),
            parameter=record(arg=_TENSOR_NAME, parameter_name=_PATH),
            buffer=record(arg=_TENSOR_NAME, buffer_name=_PATH, persistent=_BOOL),
            tensor_constant=record(arg=_TENSOR_NAME, tensor_constant_name=_PATH),
            constant_input=record(name=_NAME, value=_CONSTANT),
        )
    ),
    output_specs=listed(union(user_output=record(arg=_ARGUMENT))),
)
_CALL = record(
    inputs=listed(_ARGUMENT),
    outputs=listed(_ARGUMENT),
    in_spec=_check_structure,
    out_spec=_check_structure,
    forward_arg_names=optional(listed(_NAME)),
)
_EXPORTED = record(
    graph_module=record(
        graph=_GRAPH,
        signature=_SIGNATURE,
        module_call_graph=listed(record(fqn=_PATH, signature=optional(_CALL))),
    ),
    opset_version=table(_NAME, _INT),
    range_constraints=table(
        where_true(SYMBOL.fullmatch, "a symbol"),
        record(min_val=optional(_INT), max_val=optional(_INT)),
    ),
    schema_version=record(major=_INT, minor=_INT),
    verifiers=listed(one_of("TRAINING", "ATEN", "")),
    torch_version=_TEXT,
)
_PAYLOAD = record(
    config=table(
        _PATH,
        record(
            path_name=where_true(
                lambda name: isinstance(name, str) and re.fullmatch(r"(weight|tensor)_\d+", name),
                "a file of a tensor",
            ),
            is_param=_BOOL,
            use_pickle=one_of(False),
            tensor_meta=_TENSOR,
        ),
    )
)
