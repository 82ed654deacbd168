"""A program from a stranger is arithmetic or refused by name; nothing of it is run."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from feature_store.errors import DataError
from recsys.export.programs import _strip
from recsys.serving.grammar import Refused
from recsys.serving.program import open_program
from recsys.serving.sizes import check_size

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = (
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
Members = dict[str, bytes]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("shift", torch.ones(2), persistent=False)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rows = self.linear(inputs["x"]) + self.shift
        return torch.cat([rows, rows]), rows.reshape(-1)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """The members of an archive that export writes."""
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    requests = torch.export.Dim("requests", min=1, max=100)
    shapes = ({"x": {0: requests}},)
    exported = torch.export.export(Small(), ({"x": torch.ones(4, 3)},), dynamic_shapes=shapes)
    _strip(exported)
    torch.export.save(exported, str(path))
    reader = torch._C.PyTorchFileReader(str(path))
    return {name: reader.get_record(name) for name in reader.get_all_records()}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What an attack leaves behind when it is run."""
    return tmp_path / "was_run"


def write(members: Members, path: Path) -> Path:
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, contents in members.items():
        if not name.startswith(".data") and name != "byteorder":  # which the writer adds
            writer.write_record(name, contents, len(contents))
    writer.write_end_of_file()
    return path


def changed(members: Members, change: Callable[[Any], object], name: str = MODEL) -> Members:
    tree = json.loads(members[name])
    change(tree)
    return {**members, name: json.dumps(tree).encode()}


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save((Attack(mark), {}), buffer)
    return buffer.getvalue()


def code(mark: Path) -> str:
    return f"__import__('os').mkdir({str(mark)!r})"


def test_an_honest_program_is_opened_and_answers(honest: Members, tmp_path: Path) -> None:
    program = open_program(write(honest, tmp_path / "small.pt2"))
    torch.manual_seed(0)
    both, flat = program({"x": torch.rand(7, 3)})
    assert both.shape == (14, 2) and flat.shape == (14,)


def test_an_export_tells_nothing_of_our_files_and_holds_no_pickle(honest: Members) -> None:
    assert honest["data/sample_inputs/model.pt"] == b""
    assert b"stack_trace" not in honest[MODEL] and b".py" not in honest[MODEL]


def payload(members: Members, name: str, path: str, contents: bytes) -> Members:
    def change(tree: Any) -> None:
        first = next(iter(tree["config"].values()))
        first |= {"path_name": path.rpartition("/")[2], "use_pickle": True}

    return {**changed(members, change, name), path: contents}


PICKLES: dict[str, Callable[[Members, Path], Members]] = {
    "sample_inputs/model.pt is a pickle of sample inputs": lambda members, mark: {
        **members,
        "data/sample_inputs/model.pt": pickled(mark),
    },
    r"weights_config.json.*use_pickle is True": lambda members, mark: payload(
        members, WEIGHTS, "data/weights/weight_0", pickled(mark)
    ),
    r"constants_config.json.*use_pickle is True": lambda members, mark: payload(
        members, CONSTANTS, "data/constants/tensor_0", pickled(mark)
    ),
    "'data/constants/opaque_obj_0' is no part of a program": lambda members, mark: payload(
        members, CONSTANTS, "data/constants/opaque_obj_0", pickled(mark)
    ),
    "'data/weights/model.pt' is no part": lambda members, mark: {
        **members,
        "data/weights/model.pt": pickled(mark),
    },
    "'data/constants/model.pt' is no part": lambda members, mark: {
        **members,
        "data/constants/model.pt": pickled(mark),
    },
    "'data/aotinductor/model/a.so' is no part": lambda members, mark: {
        **members,
        "data/aotinductor/model/a.so": b"",
    },
    "'serialized_exported_program.json' is no part": lambda members, mark: {  # of old
        "version": b"8.1",
        "serialized_exported_program.json": members[MODEL],
        "serialized_state_dict.pt": pickled(mark),
        "serialized_constants.pt": pickled(mark),
        "serialized_example_inputs.pt": pickled(mark),
    },
}


@pytest.mark.parametrize("text", PICKLES)
def test_pickles_and_libraries_are_refused(
    honest: Members, tmp_path: Path, mark: Path, text: str
) -> None:
    assert_refused(write(PICKLES[text](honest, mark), tmp_path / "bad.pt2"), text, mark)


def graph(tree: Any) -> Any:
    return tree["graph_module"]["graph"]


def call(tree: Any) -> Any:
    return tree["graph_module"]["module_call_graph"][0]["signature"]


def an_expression(tree: Any, text: str) -> None:
    sizes = next(t["sizes"] for t in graph(tree)["tensor_values"].values() if "as_expr" in str(t))
    sizes[0]["as_expr"]["expr_str"] = text


def structure(kind: str, context: Any) -> str:
    spec = {"type": kind, "context": context, "children_spec": []}
    return json.dumps([1, spec])


def keywords(name: str) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    args = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf]}
    named = {"type": "builtins.dict", "context": json.dumps([name]), "children_spec": [leaf]}
    root = {"type": "builtins.tuple", "context": "null", "children_spec": [args, named]}
    return json.dumps([1, root])


TREES: dict[str, Callable[[Any, Path], object]] = {
    r"expr_str is .*more than an expression of sizes": lambda t, m: an_expression(t, code(m)),
    "guards_code is .* nothing belongs": lambda t, m: t.update(guards_code=[code(m)]),
    r"nodes.0.name is .* not a name": lambda t, m: graph(t)["nodes"][0].update(
        name=f"x = {code(m)} #"
    ),
    r"inputs.0.as_tensor.name is .* not a name": lambda t, m: graph(t)["inputs"][0].update(
        as_tensor={"name": f"x={code(m)}"}
    ),
    "calls 'torch.hub.load'": lambda t, m: graph(t)["nodes"][0].update(target="torch.hub.load"),
    "calls '.*from_file.default'": lambda t, m: graph(t)["nodes"][0].update(
        target="torch.ops.aten.from_file.default"
    ),
    "calls '.*linear.__init__'": lambda t, m: graph(t)["nodes"][0].update(
        target="torch.ops.aten.linear.__init__"
    ),
    "calls '.*linear.overloads'": lambda t, m: graph(t)["nodes"][0].update(
        target="torch.ops.aten.linear.overloads"
    ),
    "calls '#ns:op'": lambda t, m: graph(t)["nodes"][0].update(target="#ns:op"),
    "calls '_operator.call'": lambda t, m: graph(t)["nodes"][0].update(target="_operator.call"),
    "forward_arg_names.0 is": lambda t, m: call(t).update(forward_arg_names=[f"x={code(m)}"]),
    "in_spec is of type 'collections.defaultdict'": lambda t, m: call(t).update(
        in_spec=structure(
            "collections.defaultdict",
            {
                "default_factory_module": "antigravity",
                "default_factory_name": "x",
                "dict_context": [],
            },
        )
    ),
    "in_spec.* is {'__enum__'": lambda t, m: call(t).update(
        in_spec=structure("builtins.list", json.dumps({"__enum__": True, "fqn": "this:x"}))
    ),
    "in_spec is .* nothing belongs": lambda t, m: call(t).update(in_spec=keywords("x=1")),
    "parameter_name is .* not a path of names": lambda t, m: t["graph_module"]["signature"][
        "input_specs"
    ][0].update(
        parameter={"arg": {"name": "p_linear_weight"}, "parameter_name": f'a."){code(m)}#'}
    ),
    "nodes.0.metadata is": lambda t, m: graph(t)["nodes"][0].update(metadata={"custom": "{}"}),
    "is as_custom_obj, which is not read": lambda t, m: graph(t)["inputs"].append(
        {"as_custom_obj": {"name": "x", "class_fqn": "y"}}
    ),
    "is as_operator, which is not read": lambda t, m: graph(t)["inputs"].append(
        {"as_operator": "torch.hub.load"}
    ),
    "custom_obj_values is": lambda t, m: graph(t).update(custom_obj_values={"x": {}}),
    "range_constraints is 'u99999999999'": lambda t, m: t["range_constraints"].update(
        {"u99999999999": {"min_val": 0, "max_val": 1}}  # torch would count up to it
    ),
    "a_later_field is": lambda t, m: t.update(a_later_field="of which nobody knows what it does"),
}


@pytest.mark.parametrize("text", TREES)
def test_code_in_the_tree_is_refused(
    honest: Members, tmp_path: Path, mark: Path, text: str
) -> None:
    members = changed(honest, lambda tree: TREES[text](tree, mark))
    assert_refused(write(members, tmp_path / "bad.pt2"), text, mark)


def test_an_archive_that_grows_is_refused(honest: Members, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "bad.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in honest.items():
            archive.writestr(f"bad/{name}", contents)
    assert_refused(path, "is compressed", mark)


def assert_refused(path: Path, text: str, mark: Path) -> None:
    with pytest.raises(DataError, match=text) as caught:
        open_program(path)
    assert "\n" not in str(caught.value) and "nothing of it was run" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, -1])
def test_half_an_archive_is_refused(honest: Members, tmp_path: Path, keep: int) -> None:
    path = write(honest, tmp_path / "bad.pt2")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"bad\.pt2 cannot be read") as caught:
        open_program(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s5', positive=True, integer=True)",
        "Add(Mul(Integer(64), Symbol('s53', positive=True, integer=True)), Integer(320))",
        "Pow(Add(Symbol('s53', integer=True), Integer(-5)), Integer(2))",
        "Min(Integer(114), FloorDiv(Symbol('u0'), Integer(2)))",
        "Equality(Symbol('s1'), Integer(2))",
    ],
)
def test_sizes_are_sums_and_products_of_symbols(text: str) -> None:
    check_size(text, "here")


@pytest.mark.parametrize(
    "text",
    [
        "1 + 1",
        "x",
        "Symbol('a b')",
        "Symbol('s1', commutative=print(1))",
        "Symbol('s1').func",
        "Symbol(*x)",
        "Integer(10**10)",
        "Integer(99999999999999999999)",
        "Pow(Integer(9), Symbol('s1'))",
        "Pow(Integer(9), Integer(99))",
        "Pow(Pow(Symbol('s1'), Integer(8)), Integer(8))",
        "Add()",
        "Lambda(Symbol('s1'), Integer(1))",
        "(lambda: 1)()",
        "Add(Integer(1), [Integer(2)])",
        "Add(" * 300 + "Integer(1)" + ")" * 300,
        "Add(" + "Integer(1), " * 300 + ")",
        "Integer(1",
        "",
        None,
        3,
    ],
)
def test_anything_else_is_no_size(text: Any) -> None:
    with pytest.raises(Refused, match=r"^here is .*expression of sizes"):
        check_size(text, "here")


class Half(nn.Module):
    """Reads one of two weights, and one of two constants."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.unread = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.ones(3), persistent=False)
        self.register_buffer("lost", torch.ones(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.read + self.shift


def test_weights_that_no_operator_reads_are_left_out() -> None:
    exported = torch.export.export(Half(), (torch.ones(2, 3),))
    _strip(exported)
    file = io.BytesIO()
    torch.export.save(exported, file)
    again = torch.export.load(io.BytesIO(file.getvalue()))
    assert set(again.state_dict) == {"read"} and set(again.constants) == {"shift"}
    assert torch.equal(again.module()(torch.ones(2, 3)), torch.full((2, 3), 2.0))
