"""Which items a model must place without their ids."""

from __future__ import annotations

from torch import Tensor, nn

from recsys.embeddings.hashing import hash_rows, salt_of

_CHANCES = 1 << 24


class HiddenIds(nn.Module):
    """Those of items without training events, about which nothing was learned, and in each step of
    a training those of a `share` of the others, so that what else is known of items learns to
    place them alone (Volkovs et al., "DropoutNet", NeurIPS 2017)."""

    new: Tensor

    def __init__(self, train_events: Tensor, share: float, seed: int) -> None:
        super().__init__()
        self.share = share
        self.seed = seed
        self.register_buffer("new", train_events == 0, persistent=False)

    def forward(self, rows: Tensor, step: int | None = None) -> Tensor:
        """Of item rows [...] whose ids are hidden; `step` that of a training."""
        hidden = self.new[rows]
        if step is None or self.share == 0:
            return hidden
        # by the item alone: hidden on all processes alike
        draws = hash_rows(rows, salt_of("hidden", self.seed, step), _CHANCES) / _CHANCES
        return hidden | (draws < self.share)
