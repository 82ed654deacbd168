"""A part's program compiled ahead of time, for C++ and Python that have torch's runtime.

A package is native code: whoever opens one runs it. Only packages of our own making are opened.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from feature_store.errors import ConfigError, DataError
from recsys.formats.source import RankerSource, Run, Source

WHAT = "an AOTInductor package"


def write_aotinductor(source: Source, folder: Path) -> list[str]:
    """Write `user.aot.pt2` or `ranker.aot.pt2`, load it and ask it the golden requests.

    It fits processors like this machine's and this version of torch. Returns its name.

    Raises:
        ConfigError: there is no C++ compiler.
        DataError: the program cannot be compiled, or an answer differs.
    """
    import torch._inductor
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ConfigError(
            f"{WHAT} needs a C++ compiler, and there is none: install g++ (Debian: apt-get "
            "install g++), or name another in the environment as CXX"
        ) from None
    exported, path = source.exported(), folder / f"{source.stem}.aot.pt2"
    exported.example_inputs = (_arguments(source, source.asked), {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch._inductor.aoti_compile_and_package(
                exported,
                package_path=str(path),
                inductor_configs={"aot_inductor.precompile_headers": False},
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"the {source.record.noun} {source.name} of {source.bundle.folder}, {source.model}, "
            f"cannot be compiled: {type(error).__name__}: {reason}: --to onnx may write it"
        ) from None
    source.check(open_aotinductor(path, source), f"the compiled program of {source.model}")
    return [path.name]


def open_aotinductor(path: Path, source: Source) -> Run:
    """Load a package, which runs its code: never one from strangers."""
    import torch._inductor

    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    package = torch._inductor.aoti_load_package(str(path))

    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        answers = package(*_arguments(source, inputs))
        return (answers,) if isinstance(answers, Tensor) else tuple(answers)

    return run


def _arguments(source: Source, inputs: Mapping[str, Tensor]) -> tuple[object, ...]:
    """Tensors by name as the program takes them."""
    if not isinstance(source, RankerSource):
        return (dict(inputs),)
    features = {name: tensor for name, tensor in inputs.items() if name != source.items}
    return features, inputs[source.items]
