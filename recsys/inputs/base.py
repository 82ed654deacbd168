"""The contract of inputs. B requests, L entries of a list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import pyarrow as pa
import torch
from torch import Tensor

from recsys.inputs.raw import Vocabularies
from recsys.inputs.requests import Requests

REQUESTS = torch.export.Dim("requests", min=1, max=1 << 20)


class EncodedRows(Protocol):
    """What inputs read of a batch of examples: columns by name."""

    def id(self, name: str) -> Tensor:
        """A single id, or a moment [B]."""

    def column(self, name: str) -> Tensor:
        """A number [B]."""

    def padded(self, name: str, length: int | None = None) -> Tensor:
        """A list [B, L], the last `length`, padded with 0 behind."""


class Input(ABC):
    """One tensor of a request: made of a batch in training, and of raw requests in serving.

    `name` is that of the tensor, and of the column that it comes from. Subclasses are frozen
    dataclasses of strings, numbers and other inputs, which a manifest holds as JSON.
    """

    name: str
    paces: ClassVar[bool] = False
    """Whether batches of whole sequences are bucketed by its length."""

    @property
    def feature(self) -> str | None:
        """The feature whose vocabulary it speaks; None where it holds numbers or moments."""
        return None

    @property
    def length(self) -> int | None:
        """How many entries of a list are read at most, its last; None for all."""
        return None

    @abstractmethod
    def from_batch(self, batch: EncodedRows) -> Tensor:
        """The tensor of a batch of examples."""

    @abstractmethod
    def from_requests(self, requests: Requests) -> Tensor:
        """The tensor of raw requests; a column that is absent holds what is unknown.

        Raises DataError naming a column whose values are of the wrong type.
        """

    @abstractmethod
    def typed(self, raw: pa.Array, vocabularies: Vocabularies) -> pa.Array:
        """A column of raw requests in the one type that it has here, whatever type the values came
        in: those of single requests can be joined then.

        Raises ValueError, DataError or one of Arrow's errors for what it is not.
        """

    @abstractmethod
    def to_raw(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Array:
        """Encoded examples as someone outside would ask: raw ids, numbers and moments."""

    def along_sequence(self) -> Input | None:
        """How training on whole sequences reads it, where every event but the first is a target;
        None where it does not."""
        return self

    def dimensions(self) -> dict[int, torch.export.Dim]:
        """Which dimensions of the tensor stay free in an exported program."""
        return {0: REQUESTS}


def list_dimensions(name: str, length: int | None) -> dict[int, torch.export.Dim]:
    """The number of requests, and the length of a list of at most `length` entries."""
    if length == 1:
        return {0: REQUESTS}
    # a dimension's name is an identifier, and a column's may be anything
    own = name if name.isidentifier() else f"x{name.encode().hex()}"
    return {0: REQUESTS, 1: torch.export.Dim(f"{own}_length", min=1, max=length)}
