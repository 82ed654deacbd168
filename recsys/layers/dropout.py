"""Dropout that draws a byte per element on CPU, where torch's draws a double."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """As `nn.Dropout`, with the probability rounded to a multiple of 1/256 on CPU.

    Drawing eight decisions from one 64-bit number makes it about three times faster there.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.threshold = min(round(probability * 256), 255)  # of 256 something is kept

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements at random while training, and scale up the rest."""
        if not self.training or self.threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.threshold
        return x * kept * (256 / (256 - self.threshold))
