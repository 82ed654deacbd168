"""The hosts that are assumed: what nobody measured here, each number with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.scaling.cost import Links, Rates


@dataclass(frozen=True)
class Machine:
    """A GPU and its links; the defaults are what NVIDIA states of an H100 SXM of 80 GB, eight a
    host, and a network of 400 Gb/s for each; `latency` is a guess at the least of an exchange."""

    memory: float = 80e9  # bytes
    bandwidth: float = 3.35e12  # bytes a second of its memory
    operations: float = 67e12  # a second, in float32 without tensor cores, as trainer.precision has
    within: float = 450e9  # bytes a second to the GPUs of its host: NVLink, in one direction
    across: float = 50e9  # bytes a second to other hosts: 400 Gb/s
    latency: float = 30e-6  # seconds
    local: int = 8

    @property
    def links(self) -> Links:
        """Between its processes."""
        return Links(self.within, self.across, self.latency, self.local)

    def rates(self, here: Rates, copies: float, products: float) -> Rates:
        """Of one of its GPUs: it reaches the share of its own peaks that a process here reached of
        what copies and products of matrices reach here; what Python takes stays as it is."""
        return Rates(
            lookup=self.bandwidth * here.lookup / copies,
            dense=self.operations * min(1.0, here.dense / products),
            overhead=here.overhead,
        )
