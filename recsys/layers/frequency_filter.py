"""A learned filter over the positions of a list, in the domain of frequencies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.layers.dropout import Dropout

_STD = 0.02


class FrequencyFilter(nn.Module):
    """`LN( dropout( Dense( irfft( W rfft(E) ) ) ) + E )` over the L positions of lists of vectors.

    Zhou et al., "Filter-enhanced MLP", WWW 2022, as Ada-Retrieval (Li et al., AAAI 2024) has it:
    one complex weight for each of the L // 2 + 1 frequencies and each of the D columns.
    """

    def __init__(self, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.length = length
        # real and imaginary parts side by side: optimizers and checkpoints know no complex numbers
        self.weight = nn.Parameter(torch.randn(length // 2 + 1, width, 2) * _STD)
        self.dense = nn.Linear(width, width)
        self.drop = Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, lists: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        if not lists.shape[0]:
            return lists  # MKL's transform refuses an empty batch
        with torch.autocast(lists.device.type, enabled=False):
            frequencies = torch.fft.rfft(lists.float(), dim=1, norm="ortho")
            frequencies = frequencies * torch.view_as_complex(self.weight.float())
            filtered = torch.fft.irfft(frequencies, n=self.length, dim=1, norm="ortho")
        return self.norm(self.drop(self.dense(filtered)) + lists)  # type: ignore[no-any-return]
