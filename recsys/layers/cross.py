"""Cross layers: products of features, one degree higher with every layer."""

from __future__ import annotations

from torch import Tensor, nn


class CrossLayers(nn.Module):
    """`x_{l+1} = x_0 * (W_l x_l + b_l) + x_l`, element-wise, with full matrices W.

    Source: Wang et al., "DCN V2", WWW 2021, equation 2.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        first = x
        for layer in self.layers:
            x = first * layer(x) + x
        return x
