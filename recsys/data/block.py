"""Block: some examples as tensors that can be permuted and sliced into batches.

Their small arithmetic is numpy's: torch would wake a team of threads for it, which then wait
for work on the cores that decode.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from feature_store.columns import LABEL, is_label
from feature_store.errors import DataError
from recsys.data.batch import Batch

# Arrow's memory is read-only, and nothing here writes to it
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


@dataclass
class Jagged:
    """Lists as values [sum of lengths] and offsets [n + 1]."""

    values: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, column: pa.ChunkedArray, max_length: int | None = None) -> Jagged:
        """View a list column; with `max_length` only the last values of each list."""
        array = _contiguous(column)
        bounds = array.offsets.to_numpy()
        values = array.values.slice(bounds[0], bounds[-1] - bounds[0])
        offsets = (bounds - bounds[0]).astype(np.int64)
        lengths = np.diff(offsets)
        if max_length is not None and lengths.max(initial=0) > max_length:
            lengths = np.minimum(lengths, max_length)
            starts = pa.array((offsets[1:] - lengths).astype(np.int32))
            sizes = pa.array(lengths.astype(np.int32))
            values = pa.ListViewArray.from_arrays(starts, sizes, values).flatten()
            offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(torch.from_numpy(values.to_numpy()), torch.from_numpy(offsets))

    @property
    def lengths(self) -> Tensor:
        """Lengths of the lists [n]."""
        return torch.from_numpy(np.diff(self.offsets.numpy()))

    def __getitem__(self, rows: slice) -> Jagged:
        offsets = self.offsets[rows.start : rows.stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return Jagged(self.values[first:last], offsets - first)

    def permute(self, order: Tensor) -> Jagged:
        """The lists in another order."""
        lengths, values, _ = torch.ops.fbgemm.permute_1D_sparse_data(
            order.to(torch.int32), self.lengths, self.values, None, len(self.values)
        )
        return Jagged(values, _offsets(lengths))


@dataclass
class Block:
    """n rows: ids [n, I], numbers [n, F] and named lists, each in the order of its names."""

    ids: Tensor
    id_names: tuple[str, ...]
    dense: Tensor
    dense_names: tuple[str, ...]
    lists: dict[str, Jagged]

    @classmethod
    def of(cls, table: pa.Table, max_lengths: dict[str, int] | None = None) -> Block:
        """The columns of a table: integers are ids, floats numbers (and so is the label), lists
        sequences or bags.

        Raises DataError naming a column that holds nulls.
        """
        ids, dense, lists = [], [], {}
        for field in table.schema:
            column = table.column(field.name)
            if column.null_count:
                raise DataError(f"column {field.name!r} of examples holds nulls")
            if pa.types.is_list(field.type):
                lists[field.name] = Jagged.of(column, (max_lengths or {}).get(field.name))
            elif pa.types.is_floating(field.type) or field.name == LABEL:
                dense.append(field.name)
            else:
                ids.append(field.name)
        return cls(
            _matrix(table, ids, np.int64),
            tuple(ids),
            _matrix(table, dense, np.float32),
            tuple(dense),
            lists,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Block:
        """Views of consecutive rows."""
        lists = {name: column[rows] for name, column in self.lists.items()}
        return Block(self.ids[rows], self.id_names, self.dense[rows], self.dense_names, lists)

    def permute(self, order: np.ndarray) -> Block:
        """The rows in another order."""
        index = torch.from_numpy(order)
        lists = {name: column.permute(index) for name, column in self.lists.items()}
        ids, dense = (
            torch.from_numpy(np.take(matrix.numpy(), order, axis=0))
            for matrix in (self.ids, self.dense)
        )
        return Block(ids, self.id_names, dense, self.dense_names, lists)

    @staticmethod
    def concat(blocks: list[Block]) -> Block:
        """Blocks one under the other; a single one is passed through without a copy."""
        first = blocks[0]
        if len(blocks) == 1:
            return first
        lists = {
            name: Jagged(
                _joined([block.lists[name].values for block in blocks]),
                _offsets(_joined([block.lists[name].lengths for block in blocks])),
            )
            for name in first.lists
        }
        ids = _joined([block.ids for block in blocks])
        dense = _joined([block.dense for block in blocks])
        return Block(ids, first.id_names, dense, first.dense_names, lists)

    def to_batch(self) -> Batch:
        """These rows as a batch."""
        names = self.dense_names
        labels = tuple(name for name in names if is_label(name))
        numbers = tuple(name for name in names if name not in labels)
        return Batch(
            ids=self.ids,
            id_names=self.id_names,
            lists=_kjt(self.lists),
            dense=self._columns(numbers),
            dense_names=numbers,
            labels=self._columns(labels) if labels else None,
            label_names=labels,
        )

    def _columns(self, names: tuple[str, ...]) -> Tensor:
        """Some of the numbers [n, len(names)]; all of them without a copy."""
        if names == self.dense_names:
            return self.dense
        return self.dense[:, [self.dense_names.index(name) for name in names]]


def _contiguous(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array


def _matrix(table: pa.Table, names: list[str], dtype: type) -> Tensor:
    out = np.empty((table.num_rows, len(names)), dtype=dtype)
    for column, name in enumerate(names):
        start = 0
        for chunk in table.column(name).chunks:
            out[start : start + len(chunk), column] = chunk.to_numpy(zero_copy_only=False)
            start += len(chunk)
    return torch.from_numpy(out)


def _offsets(lengths: Tensor) -> Tensor:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths.numpy(), out=offsets[1:])
    return torch.from_numpy(offsets)


def _joined(tensors: list[Tensor]) -> Tensor:
    """Tensors one behind the other; a single one is passed through."""
    if len(tensors) == 1:
        return tensors[0]
    return torch.from_numpy(np.concatenate([tensor.numpy() for tensor in tensors]))


def _kjt(lists: dict[str, Jagged]) -> KeyedJaggedTensor | None:
    """The lists in one KeyedJaggedTensor of int64: torch indexes with nothing else.

    They stay as narrow as they were stored until here, where they are copied anyway.
    """
    if not lists:
        return None
    values = np.concatenate([column.values.numpy() for column in lists.values()], dtype=np.int64)
    return KeyedJaggedTensor(
        list(lists),
        torch.from_numpy(values),
        lengths=_joined([column.lengths for column in lists.values()]),
    )
