"""Stable 64-bit hashing of ids to rows, the same on every process, machine and device.

A raw id has a 64-bit key (`feature_store.hashing`), and a key has a row for every salt.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from feature_store.hashing import CODE_OF_ZERO

# Kept in checkpoints and bundles: rows hashed by another version are other rows. 1: the key of an
# id was its row in the vocabulary; 2: it is that of the raw id; 3: unknown has a salt of its own,
# and no longer the key of the id 0.
VERSION = 3

# splitmix64's constants as signed 64-bit integers: products wrap around, as they should
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def salt_of(*parts: str | int) -> int:
    """A signed 64-bit salt for a name, such as (feature, probe)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def splitmix64(x: Tensor, salt: int) -> Tensor:
    """63 well-mixed bits of int64 `x` of any shape, by splitmix64 of x + salt.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    x = x.to(torch.int64) * _GAMMA + salt
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return _shift(x ^ _shift(x, 31), 1)


def hash_rows(keys: Tensor, salt: int, rows: int) -> Tensor:
    """Rows in [0, `rows`) of int64 `keys` of any shape."""
    return splitmix64(keys, salt) % rows


def row_map(keys: Tensor, salt: int, rows: int) -> Tensor:
    """Hashed rows [V + 1] of a vocabulary: of the unknown id, then of ids with int64 `keys` [V].

    Every 64-bit number may be an id's key, so unknown has a salt instead, which no id has.
    """
    unknown = keys.new_tensor([unknown_row(salt, rows)])
    return torch.cat([unknown, hash_rows(keys, salt, rows)])


def unknown_row(salt: int, rows: int) -> int:
    """The row of the unknown id."""
    return int(hash_rows(torch.zeros(1, dtype=torch.int64), salt_of("unknown", salt), rows))


def code_rows(codes: Tensor, salt: int, rows: int, unknown: int) -> Tensor:
    """Hashed rows of codes of any shape: of ids those of their keys, as in `row_map`; of 0, which
    is no id, `unknown`."""
    keys = codes.masked_fill(codes == CODE_OF_ZERO, 0)
    return hash_rows(keys, salt, rows).masked_fill(codes == 0, unknown)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
