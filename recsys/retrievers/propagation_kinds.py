"""The propagations that a config may choose, each with the options that it alone has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from recsys.layers.propagation import Bipartite, LightGCN, Sheaf, Unpropagated
from recsys.options import Chosen, Kind


class PropagationKind(Kind, ABC):
    """A propagation and its options."""

    @abstractmethod
    def make(self, graph: Bipartite, width: int) -> nn.Module:
        """The module that takes the graph and vectors [U, D] and [N, D] of its nodes."""


class LightGCNKind(PropagationKind):
    """He et al., SIGIR 2020: the mean over the layers."""

    name: Literal["lightgcn"] = "lightgcn"
    layers: int = Field(3, ge=1, description="L.")

    def make(self, graph: Bipartite, width: int) -> nn.Module:
        """`LightGCN`."""
        return LightGCN(graph, self.layers)


class SheafKind(PropagationKind):
    """Purificato et al., 2023: all layers side by side, (L + 1) times the width."""

    name: Literal["sheaf"] = "sheaf"
    layers: int = Field(3, ge=1, description="L.")

    def make(self, graph: Bipartite, width: int) -> nn.Module:
        """`Sheaf`."""
        return Sheaf(width, self.layers)


class NoPropagation(PropagationKind):
    """The vectors as they are."""

    name: Literal["none"] = "none"

    def make(self, graph: Bipartite, width: int) -> nn.Module:
        """`Unpropagated`."""
        return Unpropagated()


AnyPropagation = Annotated[
    LightGCNKind | SheafKind | NoPropagation, Field(discriminator="name"), Chosen()
]
