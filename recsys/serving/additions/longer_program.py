"""A user program that holds the sentences of items -> the same with those of more items."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from feature_store.durable import write_bytes
from recsys.serving.held_sentences import OFFSETS, TOKENS, TYPES, HeldSentences, names_among
from recsys.serving.program import open_exported
from recsys.text.tokenised import TokenisedItems


def write_longer_program(source: Path, items: TokenisedItems, target: Path) -> None:
    """Write the program of `source` with the sentences of items that follow those it knows: then it
    reads them in histories.

    Raises DataError where the program holds no sentences.
    """
    exported = open_exported(source)
    names = names_among(list(exported.constants), str(source))
    held = HeldSentences(*(exported.constants[names[end]] for end in (TOKENS, TYPES, OFFSETS)))
    placeholders = exported.graph_signature.inputs_to_buffers
    for end, longer in held.followed_by(items).by_name().items():
        exported.constants[names[end]] = longer
        for node in exported.graph.nodes:
            if node.op == "placeholder" and placeholders.get(node.name) == names[end]:
                node.meta["val"] = node.meta["val"].new_empty(longer.shape)
    buffer = io.BytesIO()  # torch ends the whole process where it cannot write a file
    torch.export.save(exported, buffer)
    write_bytes(buffer.getvalue(), target)
