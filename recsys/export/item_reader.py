"""What encodes new items from their texts -> the files of a bundle by which it does without us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.data.examples import Examples
from recsys.export.programs import save_program
from recsys.retrievers.base import ItemReader
from recsys.serving.bundle import Bundle
from recsys.serving.generator import ITEMS
from recsys.serving.item_encoder import PROGRAM, SHORTEST, TOKENIZER, ItemEncoder
from recsys.text.options import TextConfig

_TOLERANCE = 1e-3  # of a coordinate of unit vectors


def read_alone(text: TextConfig) -> TextConfig:
    """The options by which sentences are made, without folders that lie elsewhere."""
    return text.model_copy(update={"tokenizer": None, "encoder": None})


def write_item_reader(reader: ItemReader, folder: Path) -> None:
    """Write `item.pt2` and the folder of the tokenizer into that of a part."""
    reader.tokenizer.save(folder / TOKENIZER)
    tokens = torch.full((2, 4), reader.tokenizer.cls)
    types = torch.tensor([[0, 1, 2, 2], [0, 2, 2, 3]])
    items = torch.export.Dim("items", min=1, max=1 << 20)
    length = torch.export.Dim("tokens", min=SHORTEST, max=reader.text.max_tokens)
    free = {0: items, 1: length}
    save_program(reader.program.eval(), (tokens, types), (free, free), folder / PROGRAM)


def verify_item_reader(bundle: Bundle, name: str, examples: Examples, rows: Tensor) -> None:
    """Encode the first candidates, item rows [n], from the bundle alone. Raises DataError where one
    is another than the bundle holds of it."""
    encoder = ItemEncoder.open(bundle, name)
    texts = examples.item_attributes(encoder.config.attributes).take(rows.numpy())
    known = torch.from_numpy(np.load(bundle.part_file(name, ITEMS))[: len(rows)])
    apart = (encoder.vectors(texts) - known).abs().amax()
    if not apart <= _TOLERANCE:
        raise DataError(
            f"{bundle.folder}: {PROGRAM} of {name} makes other vectors of known items than the "
            f"model, {float(apart):.2g} apart"
        )
