"""Stable 64-bit hashing of integer ids, the same on every process, machine and device."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

VERSION = 1  # kept in checkpoints and bundles: rows hashed by another version are other rows

# splitmix64's constants as signed 64-bit integers: products wrap around, as they should
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def salt_of(*parts: str | int) -> int:
    """A signed 64-bit salt for a name, such as (feature, probe)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def hash_rows(ids: Tensor, salt: int, rows: int) -> Tensor:
    """Rows in [0, `rows`) of int64 `ids` of any shape, by splitmix64 of id + salt.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    x = ids.to(torch.int64) * _GAMMA + salt
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return _shift(x ^ _shift(x, 31), 1) % rows


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
