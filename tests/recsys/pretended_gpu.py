"""A GPU that is none: tensors that say they are on `cuda`, and refuse what tensors there refuse.

They lie in the CPU's memory. Mixed with tensors that were not moved, or read by numpy, they raise
as those of a real device do; so code that forgets to move something is seen without a GPU. Kernels
are the CPU's: nothing is said of those of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
_HERE = {"cpu", "tolist", "item", "__repr__", "__bool__", "__int__", "__float__", "__len__", "size"}
# An index may lie on the CPU whatever it indexes, and what is assigned or copied may, too.
_MIXED = {"__getitem__", "__setitem__", "copy_", "to", "type_as", "set_", "__set__"}


class _There(Tensor):
    """A tensor that says that it is on the GPU."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _call(func, args, kwargs or {})


class _Mode(TorchFunctionMode):
    """What is made with `device="cuda"`, or moved there, is there."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "")
    owner = getattr(func, "__self__", None)
    if name == "__get__" and owner is not None:  # a property of a tensor
        asked = getattr(owner, "__name__", "")
        if isinstance(args[0], _There) and asked in ("device", "is_cuda", "is_cpu"):
            return {"device": CUDA, "is_cuda": True, "is_cpu": False}[asked]
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = [isinstance(x, _There) for x in tensors]
    if any(there) and name == "numpy":
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    moved = _device(args, kwargs)
    with torch._C.DisableTorchFunction():
        if any(there) and not all(there) and name not in _MIXED and not _BACKWARD[0]:
            stray = [x for x, is_there in zip(tensors, there, strict=True) if not is_there]
            if any(x.dim() for x in stray):
                raise RuntimeError(
                    f"{resolve_name(func) or name}: expected all tensors to be on the same device, "
                    "but found at least two, cuda:0 and cpu"
                )
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        plain_args, plain_kwargs = tree_map(_without_device, (args, kwargs))
        answer = func(*plain_args, **plain_kwargs)
    leaves = any(there) if moved is None else moved.type == "cuda"
    if name in _HERE or (name == "__get__" and not any(there)):
        leaves = False
    return tree_map(_there if leaves else _here, answer)


_BACKWARD = [False]


def _device(args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    """The device that a call names."""
    named = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device | str)]
    for value in named:
        try:
            return torch.device(value)
        except RuntimeError:
            continue
    return None


def _without_device(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


def _there(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, _There):
        return value
    with torch._C.DisableTorchFunction():
        if value.requires_grad:
            return value.as_subclass(_There)
        return Tensor._make_subclass(_There, value)  # no view, so that it may be written to


def _here(value: Any) -> Any:
    if not isinstance(value, _There):
        return value
    with torch._C.DisableTorchFunction():
        return value.as_subclass(Tensor)


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """`cuda` works as a device within."""
    stream = Mock(name="stream")  # TorchRec waits for it
    with _Mode(), patch.object(torch.cuda, "current_stream", lambda device=None: stream):
        yield CUDA


def move(model: nn.Module) -> nn.Module:
    """The model with all its weights and buffers there."""
    for module in model.modules():
        for name, weights in module._parameters.items():
            if weights is not None:
                moved = nn.Parameter(_there(weights.detach().clone()), weights.requires_grad)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            module._buffers[name] = _there(buffer)
    return model


def backward(loss: Tensor) -> None:
    """Gradients, which the engine makes as plain tensors whatever they are of."""
    _BACKWARD[0] = True
    try:
        with torch._C.DisableTorchFunction():
            loss.as_subclass(Tensor).backward()
    finally:
        _BACKWARD[0] = False
