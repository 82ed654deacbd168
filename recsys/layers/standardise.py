"""Numbers of any scale to mean 0 and deviation 1, as training saw them; unknown ones to 0."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """`(x - mean) / deviation` by names, of what is known: NaN is not, and becomes 0, the mean; of
    `logs` x is sign(x) log(1 + |x|). The constants are saved with the weights."""

    def __init__(self, columns: dict[str, Tensor], logs: Collection[str] = ()) -> None:
        super().__init__()
        self.logs = frozenset(logs)
        for name, values in columns.items():
            values = self._read(name, values)
            known = values[~values.isnan()].double()
            if not len(known):
                known = known.new_zeros(1)
            deviation, mean = torch.std_mean(known, correction=0)
            deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant stays one
            self.register_buffer(f"{name}_mean", mean.float())
            self.register_buffer(f"{name}_deviation", deviation.float())

    def names(self, feature: str) -> tuple[str, str]:
        """Names of a feature's constants in the state."""
        return f"{feature}_mean", f"{feature}_deviation"

    def forward(self, name: str, values: Tensor) -> Tensor:
        """[...] -> [...]."""
        values = self._read(name, values)
        scaled = (values - getattr(self, f"{name}_mean")) / getattr(self, f"{name}_deviation")
        return torch.where(values.isnan(), 0.0, scaled)

    def _read(self, name: str, values: Tensor) -> Tensor:
        return values.sign() * values.abs().log1p() if name in self.logs else values
