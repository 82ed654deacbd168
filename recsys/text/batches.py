"""Histories of items -> sequences of their sentences, for all tokens at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.text.tokenised import CLS, PADDING, VALUE, TokenisedItems


@dataclass(frozen=True)
class TextBatch:
    """B sequences of S tokens at most, padded behind; each begins with [CLS].

    Attributes:
        tokens: int64 [B, S].
        types: int64 [B, S]: 0 of [CLS], 1 of an attribute's name, 2 of a value, 3 of padding.
        item_positions: int64 [B, S]: 0 of [CLS] and of padding; 1 of the newest item, and so on.
        mask: bool [B, S], true of what is no padding.
    """

    tokens: Tensor
    types: Tensor
    item_positions: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sequence [B]."""
        return self.mask.sum(dim=1)

    def to(self, device: torch.device) -> TextBatch:
        """The batch on another device."""
        return TextBatch(*(part.to(device) for part in self.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens, types, item positions and mask."""
        return self.tokens, self.types, self.item_positions, self.mask


class Sentences(nn.Module):
    """Tokenised items as buffers, which move with a model and of which it makes its batches."""

    tokens: Tensor
    types: Tensor
    offsets: Tensor
    first_like: Tensor  # [N], the first item with the same sentence

    def __init__(self, items: TokenisedItems, *, max_tokens: int, max_items: int) -> None:
        super().__init__()
        self.max_tokens, self.max_items = max_tokens, max_items
        self.cls, self.pad, self.sep = items.cls, items.pad, items.sep
        # one before all of them for padding, so that further items can follow, and one behind for
        # the separator behind the last sentence of all
        buffers = {
            "tokens": np.pad(items.tokens, 1, constant_values=items.pad),
            "types": np.pad(items.types, 1, constant_values=PADDING),
            "offsets": items.offsets + 1,
            "first_like": items.first_like,
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values.copy()), persistent=False)

    def sequences(self, histories: Tensor, length: int | None = None) -> TextBatch:
        """The sequences of histories [B, T] of item rows, oldest first; 0 is none, wherever it
        stands.

        [CLS], then the sentence of the newest item, and so on, up to `max_items` items and
        `max_tokens` tokens. S is the longest sequence, or `length`.
        """
        rows = histories.flip(1)
        place = (rows != 0).cumsum(1)  # 1 of the newest item
        read = (rows != 0) & (place <= self.max_items)
        return self._joined(rows, place, read, length)

    def items(self, rows: Tensor, length: int | None = None) -> TextBatch:
        """Each of the items [B] as a sequence of itself alone."""
        rows = rows.unsqueeze(1)
        return self._joined(rows, torch.ones_like(rows), torch.ones_like(rows), length)

    def lengths(self, rows: Tensor) -> Tensor:
        """Tokens of the sequence of each item [B] alone, [CLS] included."""
        sentence = self.offsets[rows + 1] - self.offsets[rows]
        return (sentence + 1 + (self.sep is not None)).clamp(max=self.max_tokens)

    def distinct(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Items [m] of which no two have the same sentence, and which of them [n] each item of
        `rows` is like."""
        return torch.unique(self.first_like[rows], return_inverse=True)  # type: ignore[no-any-return]

    def _joined(self, rows: Tensor, place: Tensor, read: Tensor, length: int | None) -> TextBatch:
        """Of items [B, T], newest first, those that are `read`, at their `place`."""
        starts = self.offsets[rows]
        lengths = (self.offsets[rows + 1] - starts) * read
        ends = lengths.cumsum(1)
        closing = self.sep is not None
        total = (ends[:, -1:] + closing).clamp(max=self.max_tokens - 1)  # but for [CLS]
        if length is None:
            length = 1 + (int(total.max()) if total.shape[0] else 0)
        longest = length - 1
        at = torch.arange(longest, device=rows.device).expand(rows.shape[0], -1).contiguous()
        item = torch.searchsorted(ends, at, right=True).clamp(max=rows.shape[1] - 1)
        mask = at < total
        source = (starts + lengths - ends).gather(1, item) + at  # where its sentence lies
        source = source.where(mask, 0)
        tokens, types = self.tokens[source].long(), self.types[source].long()
        places = place.gather(1, item).where(mask, 0)
        if self.sep is not None:
            last = at == total - 1
            tokens, types = tokens.masked_fill(last, self.sep), types.masked_fill(last, VALUE)
        first = tokens.new_ones(rows.shape[0], 1)
        return TextBatch(
            torch.cat([first * self.cls, tokens], dim=1),
            torch.cat([first * CLS, types], dim=1),
            torch.cat([first * 0, places], dim=1),
            torch.cat([first.bool(), mask], dim=1),
        )


def by_length(lengths: np.ndarray, tokens_per_batch: int) -> list[np.ndarray]:
    """Places [n] of sequences with these lengths, cut into batches: sequences of like length lie
    together, the longest first, and no batch has more than `tokens_per_batch` tokens with its
    padding, unless it is of one sequence."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        count = max(1, tokens_per_batch // longest)
        batches.append(order[start : start + count])
        start += count
    return batches
