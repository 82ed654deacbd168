"""The name of the space that a model's vectors live in."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def space_of(model: nn.Module) -> str:
    """Sixteen hex digits over the names and bytes of a model's state.

    Whatever is done with the trained weights, such as another export, more items or tables of
    fewer bits, is of the same space, and another training is of another.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]
