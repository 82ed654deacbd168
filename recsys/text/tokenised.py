"""The sentences of all items as tokens, one array behind the other, kept as Parquet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import read_parquet

CLS, NAME, VALUE, PADDING = 0, 1, 2, 3  # types of tokens
_ABOUT = b"recsys.text"


@dataclass(frozen=True)
class TokenisedItems:
    """Sentences of N items: item n has the tokens from `offsets[n]` to `offsets[n + 1]`.

    Attributes:
        tokens: int32 [S] of all items, without special ones.
        types: int8 [S], `NAME` or `VALUE`.
        offsets: int64 [N + 1].
        cls, pad: the tokenizer's tokens that begin a sequence and fill it up.
        sep: the token that ends a sequence, if one does.
    """

    tokens: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    cls: int
    pad: int
    sep: int | None = None

    def save(self, path: Path, fingerprint: str = "") -> None:
        """Write them as Parquet, one row an item, with what they were made of."""
        offsets = pa.array(self.offsets)
        columns = {
            "tokens": pa.LargeListArray.from_arrays(offsets, pa.array(self.tokens)),
            "types": pa.LargeListArray.from_arrays(offsets, pa.array(self.types)),
        }
        about = {"cls": self.cls, "pad": self.pad, "sep": self.sep, "made_of": fingerprint}
        write_parquet(pa.table(columns), path, metadata={_ABOUT: json.dumps(about).encode()})

    @classmethod
    def load(cls, path: Path) -> TokenisedItems:
        """What `save` wrote. Raises DataError for anything else."""
        return cls.read(path)[0]

    @classmethod
    def read(cls, path: Path) -> tuple[TokenisedItems, str]:
        """`load`, and the fingerprint of what they were made of."""
        table = read_parquet(path)
        about = (table.schema.metadata or {}).get(_ABOUT)
        if about is None:
            raise DataError(f"{path} holds no tokenised items")
        told = json.loads(about)
        tokens, types = (table.column(name).combine_chunks() for name in ("tokens", "types"))
        lengths = pc.list_value_length(tokens).to_numpy().astype(np.int64)
        items = cls(
            tokens.flatten().to_numpy(),
            types.flatten().to_numpy(),
            np.concatenate([[0], np.cumsum(lengths)]),
            told["cls"],
            told["pad"],
            told["sep"],
        )
        return items, told["made_of"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every item [N]."""
        return np.diff(self.offsets)

    @cached_property
    def first_like(self) -> np.ndarray:
        """The first item [N] with the same sentence as each."""
        pairs = self.tokens.astype(np.int64) * (PADDING + 1) + self.types
        size = pairs.itemsize
        buffers = [None, pa.py_buffer(self.offsets * size), pa.py_buffer(pairs)]
        sentences = pa.Array.from_buffers(pa.large_binary(), len(self), buffers)
        codes = sentences.dictionary_encode().indices.to_numpy()
        _, first = np.unique(codes, return_index=True)
        return first[codes]
