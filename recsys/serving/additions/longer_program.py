"""A user program that holds the sentences of items -> the same with those of more items."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from feature_store.durable import write_bytes
from feature_store.errors import DataError
from recsys.serving.program import open_exported
from recsys.text.tokenised import TokenisedItems

_TOKENS, _TYPES, _OFFSETS = "sentences.tokens", "sentences.types", "sentences.offsets"


def write_longer_program(source: Path, items: TokenisedItems, target: Path) -> None:
    """Write the program of `source` with the sentences of items that follow those it knows: then it
    reads them in histories.

    Raises DataError where the program holds no sentences.
    """
    exported = open_exported(source)
    names = {name: _only(exported.constants, name, source) for name in (_TOKENS, _TYPES, _OFFSETS)}
    offsets = exported.constants[names[_OFFSETS]]
    more = {
        _TOKENS: torch.from_numpy(items.tokens),
        _TYPES: torch.from_numpy(items.types),
        _OFFSETS: torch.from_numpy(items.offsets[1:]) + offsets[-1],
    }
    placeholders = exported.graph_signature.inputs_to_buffers
    for part, name in names.items():
        known = exported.constants[name]
        end = len(known) if part == _OFFSETS else len(known) - 1  # the last is what stands behind
        longer = torch.cat([known[:end], more[part].to(known.dtype), known[end:]])
        exported.constants[name] = longer
        for node in exported.graph.nodes:
            if node.op == "placeholder" and placeholders.get(node.name) == name:
                node.meta["val"] = node.meta["val"].new_empty(longer.shape)
    buffer = io.BytesIO()  # torch ends the whole process where it cannot write a file
    torch.export.save(exported, buffer)
    write_bytes(buffer.getvalue(), target)


def _only(constants: dict[str, Tensor], ending: str, path: Path) -> str:
    names = [name for name in constants if name.endswith(ending)]
    if len(names) != 1:
        raise DataError(f"{path} holds no sentences of items: export the bundle again")
    return names[0]
