"""Deep networks, and the activations between their layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.dice import Dice

Activation = Literal["relu", "prelu", "dice"]


class PReLU(nn.PReLU):
    """A slope of negative numbers for each of C channels, which are the last dimension; torch's
    are the second."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return F.prelu(x.flatten(0, -2), self.weight).view(x.shape)


ACTIVATIONS: dict[Activation, Callable[[int], nn.Module]] = {
    "relu": lambda width: nn.ReLU(),
    "prelu": PReLU,
    "dice": Dice,
}


def deep_network(
    width: int,
    hidden: Sequence[int],
    out: int,
    *,
    activation: Activation = "relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """[n, width] -> [n, out], through hidden layers of these widths."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), ACTIVATIONS[activation](size), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, out))
