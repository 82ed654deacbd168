"""The sentences of items that a user program holds, to read histories with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from feature_store.errors import DataError
from recsys.text.tokenised import TokenisedItems

TOKENS, TYPES, OFFSETS = "sentences.tokens", "sentences.types", "sentences.offsets"

_HOLDING = Lock()


@dataclass(frozen=True)
class HeldSentences:
    """Tensors as of `recsys.text.batches.Sentences`, in whatever holds them by the names that end
    in `TOKENS`, `TYPES` and `OFFSETS`."""

    tokens: Tensor
    types: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        """N: items, the unknown one included."""
        return len(self.offsets) - 1

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and types of an item's sentence."""
        start, end = self.offsets[row : row + 2].tolist()
        return self.tokens[start:end].numpy(), self.types[start:end].numpy()

    def followed_by(self, items: TokenisedItems) -> HeldSentences:
        """With the sentences of more items, whose rows follow. The last token stands behind all."""
        tokens = torch.from_numpy(items.tokens).to(self.tokens.dtype)
        types = torch.from_numpy(items.types).to(self.types.dtype)
        return HeldSentences(
            torch.cat([self.tokens[:-1], tokens, self.tokens[-1:]]),
            torch.cat([self.types[:-1], types, self.types[-1:]]),
            torch.cat([self.offsets, torch.from_numpy(items.offsets[1:]) + self.offsets[-1]]),
        )

    def by_name(self) -> dict[str, Tensor]:
        """The tensors by the ends of their names."""
        return {TOKENS: self.tokens, TYPES: self.types, OFFSETS: self.offsets}


def names_among(names: list[str], where: str) -> dict[str, str]:
    """The whole names of the tensors of sentences, by their ends. Raises DataError where there are
    none."""
    ends = (TOKENS, TYPES, OFFSETS)
    whole = {end: [name for name in names if name.endswith(end)] for end in ends}
    if any(len(alike) != 1 for alike in whole.values()):
        raise DataError(f"{where} holds no sentences of items: export the bundle again")
    return {end: alike[0] for end, alike in whole.items()}


def held_by(program: nn.Module, where: str) -> HeldSentences:
    """The sentences of an opened program. Raises DataError where it holds none."""
    names = names_among([name for name, _ in program.named_buffers()], where)
    return HeldSentences(*(program.get_buffer(names[end]) for end in (TOKENS, TYPES, OFFSETS)))


@contextmanager
def holding_more(program: nn.Module, items: TokenisedItems, where: str) -> Iterator[None]:
    """The program reads further items as well, in the rows that follow; only within the block, into
    which threads go one at a time."""
    with _HOLDING:
        before = held_by(program, where)
        _hold(program, before.followed_by(items), where)
        try:
            yield
        finally:
            _hold(program, before, where)


def _hold(program: nn.Module, sentences: HeldSentences, where: str) -> None:
    names = names_among([name for name, _ in program.named_buffers()], where)
    for end, tensor in sentences.by_name().items():
        owner, _, name = names[end].rpartition(".")
        setattr(program.get_submodule(owner), name, tensor)
