"""Tables of fewer bits for serving, each row with a scale and an offset of its own.

The codes are those of FBGEMM's row-wise formats, as torch's own operators pack them: 8 bits with
a float32 scale and offset a row, or 4 bits with half-precision ones, whose range is searched for
the least squared error. Rows are read as codes and pooled as float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feature_store.errors import ConfigError
from recsys.embeddings.options import Dtype, QuantisationConfig
from recsys.embeddings.plain import PlainEmbeddings

_WIDER: dict[Dtype, Dtype] = {"int4": "int8", "int8": "fp16", "fp16": "fp32"}


class Table(nn.Module):
    """Rows [...] -> vectors [..., W] of float32; `bytes` is what is stored."""

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return sum(buffer.nbytes for buffer in self.buffers())


class HalfTable(Table):
    """Weights in half precision."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights.to(torch.float16))

    def forward(self, rows: Tensor) -> Tensor:
        """[...] -> [..., W]."""
        return self.weights[rows].float()


class ByteTable(Table):
    """`code * scale + offset`, a byte a weight."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        packed = torch.ops.quantized.embedding_bag_byte_prepack(weights.contiguous())
        width = weights.shape[1]
        self.register_buffer("codes", _copy(packed[:, :width]))
        self.register_buffer("scales", _copy(packed[:, width:]).view(torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        """[...] -> [..., W]."""
        scale, offset = self.scales[rows].unsqueeze(-1).unbind(-2)
        return self.codes[rows].float() * scale + offset


class NibbleTable(Table):
    """`code * scale + offset`, four bits a weight, the lower ones first."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.width = weights.shape[1]
        # a half byte more where the width is odd: a copy, so that the range of the row stays
        even = torch.cat([weights, weights[:, -1:]], 1) if self.width % 2 else weights
        packed = torch.ops.quantized.embedding_bag_4bit_prepack(even.contiguous(), True)
        half = even.shape[1] // 2
        self.register_buffer("codes", _copy(packed[:, :half]))
        self.register_buffer("scales", _copy(packed[:, half:]).view(torch.float16))

    def forward(self, rows: Tensor) -> Tensor:
        """[...] -> [..., W]."""
        packed = self.codes[rows]
        codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)[..., : self.width]
        scale, offset = self.scales[rows].float().unsqueeze(-1).unbind(-2)
        return codes.float() * scale + offset


def _copy(columns: Tensor) -> Tensor:
    return columns.clone(memory_format=torch.contiguous_format)


_TABLES: dict[Dtype, type[Table]] = {"fp16": HalfTable, "int8": ByteTable, "int4": NibbleTable}


@dataclass
class TableRecord:
    """What became of a table."""

    requested: Dtype
    dtype: Dtype
    bytes: int
    fp32_bytes: int
    max_error: float = 0.0
    mean_error: float = 0.0
    relative_error: float = 0.0  # root mean square, over that of the weights
    reason: str | None = None  # why it is not as requested


def quantise(
    embeddings: PlainEmbeddings, config: QuantisationConfig, measure: Callable[[], float]
) -> dict[str, Any]:
    """Replace the tables of a model that serves by smaller ones, in place; returns a record.

    `measure` gives the model's figure (more is better) with the tables as they are. Tables
    beyond `max_error` take the next wider dtype, and so does the table with the largest error
    as long as the figure falls by more than `max_loss`.

    Raises ConfigError for a table that is not known.
    """
    plain: dict[str, Any] = dict(embeddings.tables.items())
    for name in config.tables:
        if name not in plain:
            raise ConfigError(
                f"export.quantisation.tables.{name}: no such table; there are: {', '.join(plain)}"
            )
    records = {}
    before = measure()
    for name, module in plain.items():
        records[name] = _fit(module.weight, config.tables.get(name, config.dtype), config)
        embeddings.tables[name] = _build(module, records[name].dtype)
    after = measure()
    while before - after > config.max_loss:
        name = max(records, key=lambda name: records[name].relative_error)
        old = records[name]
        records[name] = _record(plain[name].weight, old.requested, _WIDER[old.dtype])
        records[name].reason = f"the figure fell by {before - after:.4f} with {old.dtype}"
        embeddings.tables[name] = _build(plain[name], records[name].dtype)
        after = measure()
    return {
        "tables": {name: asdict(record) for name, record in records.items()},
        "fp32": before,
        "quantised": after,
        "max_loss": config.max_loss,
        "bytes": sum(record.bytes for record in records.values()),
        "fp32_bytes": sum(record.fp32_bytes for record in records.values()),
    }


def _fit(weights: Tensor, requested: Dtype, config: QuantisationConfig) -> TableRecord:
    """The narrowest dtype, from the requested one on, whose error is small enough."""
    record = _record(weights, requested, requested)
    while record.relative_error > config.max_error:
        reason = f"{record.dtype} has a relative error of {record.relative_error:.3f}"
        record = _record(weights, requested, _WIDER[record.dtype])
        record.reason = reason
    return record


@torch.no_grad()
def _record(weights: Tensor, requested: Dtype, dtype: Dtype) -> TableRecord:
    if dtype == "fp32":
        return TableRecord(requested, dtype, weights.nbytes, weights.nbytes)
    table = _TABLES[dtype](weights)
    worst = total = squares = 0.0
    for rows in torch.arange(len(weights)).split(1 << 16):
        errors = (table(rows) - weights[rows]).abs()
        worst = max(worst, float(errors.max()))
        total, squares = total + float(errors.sum()), squares + float(errors.square().sum())
    norm = float(torch.linalg.vector_norm(weights))
    return TableRecord(
        requested,
        dtype,
        table.bytes,
        weights.nbytes,
        max_error=worst,
        mean_error=total / weights.numel(),
        relative_error=squares**0.5 / norm if norm else 0.0,
    )


def _build(plain: Any, dtype: Dtype) -> nn.Module:
    return plain if dtype == "fp32" else _TABLES[dtype](plain.weight.detach())
