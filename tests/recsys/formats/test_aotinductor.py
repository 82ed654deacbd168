"""Compiled programs answer as the bundle does; compiling takes half a minute: `make formats`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from feature_store.errors import ConfigError, DataError
from recsys.formats.convert import convert
from recsys.rankers import RANKERS
from recsys.retrievers import RETRIEVERS

EVERY = [*RETRIEVERS, *RANKERS] if os.environ.get("EVERY_RETRIEVER") else []


@pytest.mark.parametrize("name", EVERY)
def test_its_compiled_program_answers(name: str, bundled: Any, tmp_path: Path) -> None:
    source = convert(bundled(name), ["aotinductor"], tmp_path / "out")
    assert (tmp_path / "out" / f"{source.stem}.aot.pt2").stat().st_size


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The programs that were to be compiled, which are kept and run as they are."""
    programs: list[Any] = []

    def compiled(exported: Any, package_path: str, inductor_configs: Any) -> None:
        assert exported.example_inputs is not None
        Path(package_path).write_bytes(b"code")
        programs.append(exported.module())

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compiled)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: programs[-1])
    return programs


@pytest.mark.parametrize("name", ["als", "dcn"])
def test_a_package_is_asked_the_golden_requests(
    name: str, bundled: Any, tmp_path: Path, kept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = convert(bundled(name), ["aotinductor"], tmp_path / "out")
    assert (tmp_path / "out" / f"{source.stem}.aot.pt2").exists() and len(kept) == 1

    def other(*arguments: Any) -> Any:
        answers = kept[-1](*arguments)
        return -answers if isinstance(answers, torch.Tensor) else (-answers[0], answers[1])

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: other)
    with pytest.raises(DataError, match=r"the compiled program of planted was not kept"):
        convert(bundled(name), ["aotinductor"], tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_a_compiler_it_says_what_to_install(
    bundled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", absent)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        convert(bundled("als"), ["aotinductor"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
