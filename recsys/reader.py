"""Reader: row groups of Parquet -> batches, shuffled, split over ranks, resumable at the row.

The order of rows is a pure function of the seed and the epoch, never of the number of processes:

    row groups, permuted -> `lanes` spans of equal length -> blocks of row groups
                         -> rows permuted within the block -> one slice of every batch

A rank reads whole lanes; lane l gives the l-th slice of each batch. With `lanes` fixed, one
process and several see the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from feature_store.errors import ConfigError, DataError
from recsys.batch import Batch

LABEL, WEIGHT = "label", "weight"


class ReaderConfig(BaseModel):
    """How examples are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(128, ge=1, description="Rows of a batch, over all processes.")
    buffer_row_groups: int = Field(
        16, ge=1, description="Row groups in memory per lane and worker; rows shuffle within them."
    )
    workers: int = Field(1, ge=1, description="Threads that prepare blocks ahead.")
    lanes: int = Field(
        0,
        ge=0,
        description="Slices of a batch read independently; 0 means one a process. "
        "Fix it to see the same batches with any number of processes that divides it.",
    )
    bucket_batches: int = Field(
        8, ge=0, description="Sort this many batches by length before cutting them; 0 turns it off."
    )


@dataclass(frozen=True)
class _Block:
    """Consecutive batches of a lane, and the parts of row groups that hold their rows."""

    first_batch: int
    sizes: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]  # (row group, first row, last row + 1)


class Reader:
    """Iterates over the batches of one epoch after another; see the module's picture.

    At most `(workers + 1) * buffer_row_groups` row groups per lane of this rank are in memory.
    Every rank gives the same number of batches. `max_lengths` keeps only the last values of a
    list. Sequence batches are bucketed by the length of `bucket_by`.
    """

    def __init__(
        self,
        path: Path | list[Path],
        config: ReaderConfig,
        *,
        columns: list[str] | None = None,
        bags: tuple[str, ...] = (),
        max_lengths: dict[str, int] | None = None,
        bucket_by: str | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.files = [Path(p) for p in ([path] if isinstance(path, str | Path) else path)]
        self.config = config
        self.bags = bags
        self.max_lengths = max_lengths or {}
        self.bucket_by = bucket_by if shuffle and config.bucket_batches else None
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world = rank, world
        self.lanes = config.lanes or world
        if self.lanes % world:
            raise ConfigError(f"reader.lanes = {self.lanes} cannot be split over {world} processes")
        if config.batch_size < self.lanes:
            raise ConfigError(f"reader.batch_size must be at least the {self.lanes} lanes")
        self.schema = pq.read_schema(self.files[0])
        if columns is not None:
            missing = sorted(set(columns) - set(self.schema.names))
            if missing:
                raise DataError(
                    f"{self.files[0]} lacks {', '.join(missing)}; it has: "
                    f"{', '.join(self.schema.names)}"
                )
            self.schema = pa.schema([self.schema.field(name) for name in columns])
        self.epoch = 0
        self._next_batch = 0

    @cached_property
    def _row_groups(self) -> list[tuple[Path, int, int]]:
        groups = []
        for path in self.files:
            footer = pq.read_metadata(path)
            groups += [
                (path, i, footer.row_group(i).num_rows) for i in range(footer.num_row_groups)
            ]
        return groups

    @cached_property
    def num_rows(self) -> int:
        """Rows of an epoch, over all ranks."""
        return sum(rows for _, _, rows in self._row_groups)

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        if self.num_rows < self.lanes:
            raise DataError(f"{self.files[0]}: {self.num_rows} rows for {self.lanes} lanes")
        # the shortest lane decides, so that no lane has an empty slice
        batches = -(-self.num_rows // self.config.batch_size)
        return max(1, min(batches, self.num_rows // self.lanes))

    def state_dict(self) -> dict[str, int]:
        """The position: the next batch of the epoch."""
        return {"epoch": self.epoch, "next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position; the next iteration starts there, reading nothing before it."""
        self.epoch, self._next_batch = state["epoch"], state["next_batch"]

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch; then the epoch is over and the next one begins."""
        lanes = range(
            self.rank * self.lanes // self.world, (self.rank + 1) * self.lanes // self.world
        )
        streams = [self._lane(lane, self._next_batch) for lane in lanes]
        for slices in zip(*streams, strict=True):
            self._next_batch += 1
            yield self._batch(slices)
        self.epoch, self._next_batch = self.epoch + 1, 0

    # -- what lies where -------------------------------------------------------------------

    def _rng(self, *parts: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, *parts])

    def _blocks(self, lane: int) -> list[_Block]:
        """The lane's batches, grouped so that each block touches few row groups."""
        order = np.arange(len(self._row_groups))
        if self.shuffle:
            order = self._rng(0).permutation(order)
        ends = np.cumsum([self._row_groups[g][2] for g in order])
        first, last = (self.num_rows * k // self.lanes for k in (lane, lane + 1))
        count = len(self)
        cuts = first + np.arange(count + 1) * (last - first) // count
        # places in `order` of the row groups that hold each batch's first and last row
        low = np.searchsorted(ends, cuts[:-1], side="right")
        high = np.searchsorted(ends, cuts[1:] - 1, side="right")
        blocks, start = [], 0
        while start < count:
            stop = start + 1
            limit = low[start] + self.config.buffer_row_groups
            while stop < count and high[stop] < limit:
                stop += 1
            parts = []
            for place in range(low[start], high[stop - 1] + 1):
                begin = ends[place] - self._row_groups[order[place]][2]
                a, b = max(cuts[start], begin) - begin, min(cuts[stop], ends[place]) - begin
                parts.append((int(order[place]), int(a), int(b)))
            sizes = tuple(int(size) for size in np.diff(cuts[start : stop + 1]))
            blocks.append(_Block(start, sizes, tuple(parts)))
            start = stop
        return blocks

    # -- rows ------------------------------------------------------------------------------

    def _lane(self, lane: int, first_batch: int) -> Iterator[dict[str, _Column]]:
        """The lane's slice of every batch from `first_batch` on, blocks prepared in threads."""
        blocks = [b for b in self._blocks(lane) if b.first_batch + len(b.sizes) > first_batch]
        with ThreadPoolExecutor(self.config.workers) as pool:
            load = lambda block: pool.submit(self._load, block, lane)  # noqa: E731
            ahead = [load(block) for block in blocks[: self.config.workers]]
            for place, block in enumerate(blocks):
                columns, slices = ahead.pop(0).result()
                if place + self.config.workers < len(blocks):
                    ahead.append(load(blocks[place + self.config.workers]))
                for number, (start, stop) in enumerate(slices, block.first_batch):
                    if number >= first_batch:
                        yield {name: column[start:stop] for name, column in columns.items()}

    def _load(self, block: _Block, lane: int) -> tuple[dict[str, _Column], list[tuple[int, int]]]:
        """A block's columns, permuted, and where each of its batches lies in them."""
        pieces = []
        for group, start, stop in block.parts:
            path, index, _ = self._row_groups[group]
            with pq.ParquetFile(path) as file:
                table = file.read_row_group(index, columns=self.schema.names)
            pieces.append(table.slice(start, stop - start))
        table = pa.concat_tables(pieces)
        columns = {
            name: _Column.of(table.column(name), self.max_lengths.get(name))
            for name in self.schema.names
        }
        bounds = np.concatenate([[0], np.cumsum(block.sizes)])
        slices = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        if self.shuffle:
            rng = self._rng(1, lane, block.first_batch)
            order = rng.permutation(table.num_rows)
            if self.bucket_by is not None:
                order = self._bucket(order, columns[self.bucket_by].lengths, bounds, rng)
            columns = {name: column.permute(order) for name, column in columns.items()}
        return columns, slices

    def _bucket(
        self, order: np.ndarray, lengths: Tensor, bounds: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Sort runs of batches by length, then give each batch a random place in its run."""
        by_length, pool = lengths.numpy(), self.config.bucket_batches
        out = []
        for first in range(0, len(bounds) - 1, pool):
            last = min(first + pool, len(bounds) - 1)
            run = order[bounds[first] : bounds[last]]
            run = run[np.argsort(by_length[run], kind="stable")]
            sizes = np.diff(bounds[first : last + 1])
            # sizes differ by one at most and stay where they are; which rows fill them is random
            turn = rng.permutation(len(sizes))
            starts = np.concatenate([[0], np.cumsum(sizes[turn])])
            placed = {int(t): run[starts[i] : starts[i + 1]] for i, t in enumerate(turn)}
            out += [placed[i] for i in range(len(sizes))]
        return np.concatenate(out)

    def _batch(self, slices: tuple[dict[str, _Column], ...]) -> Batch:
        """Slices of all lanes of this rank, one under the other, as one batch."""
        columns = {
            name: _Column.concat([part[name] for part in slices]) for name in self.schema.names
        }
        return _assemble(columns, self.schema, self.bags)


def batch_of(table: pa.Table, bags: tuple[str, ...] = ()) -> Batch:
    """A whole Arrow table as one batch."""
    columns = {name: _Column.of(table.column(name)) for name in table.column_names}
    return _assemble(columns, table.schema, bags)


def _assemble(columns: dict[str, _Column], schema: pa.Schema, bag_names: tuple[str, ...]) -> Batch:
    dense: list[tuple[str, Tensor]] = []
    sequences: list[tuple[str, _Column]] = []
    bags: list[tuple[str, _Column]] = []
    extra: dict[str, Tensor] = {}
    for field in schema:
        column = columns[field.name]
        if field.name in (LABEL, WEIGHT):
            extra[f"{field.name}s"] = column.values.to(torch.float32)
        elif pa.types.is_floating(field.type):
            dense.append((field.name, column.values.to(torch.float32)))
        else:
            (bags if field.name in bag_names else sequences).append((field.name, column))
    rows = len(next(iter(columns.values())))
    return Batch(
        sequences=_kjt(sequences),
        bags=_kjt(bags) if bags else None,
        dense=torch.stack([v for _, v in dense], 1) if dense else torch.zeros(rows, 0),
        dense_names=tuple(name for name, _ in dense),
        **extra,  # type: ignore[arg-type]
    )


def _kjt(columns: list[tuple[str, _Column]]) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        [name for name, _ in columns],
        torch.cat([column.values for _, column in columns]),
        lengths=torch.cat([column.lengths for _, column in columns]),
    )


@dataclass
class _Column:
    """A column as tensors that share Arrow's memory: values, and offsets where it holds lists."""

    values: Tensor
    offsets: Tensor | None = None

    @classmethod
    def of(cls, column: pa.ChunkedArray, max_length: int | None = None) -> _Column:
        """View a column; with `max_length` only the last values of each list."""
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0)
        if array.null_count:
            raise DataError(f"a column of examples holds {array.null_count} nulls: {array.type}")
        if not pa.types.is_list(array.type):
            return cls(_view(array))
        offsets = array.offsets.to_numpy()
        lengths = np.diff(offsets)
        values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        offsets = offsets - offsets[0]
        if max_length is not None and len(lengths) and lengths.max() > max_length:
            lengths = np.minimum(lengths, max_length).astype(np.int32)
            starts = pa.array((offsets[1:] - lengths).astype(np.int32))
            values = pa.ListViewArray.from_arrays(starts, pa.array(lengths), values).flatten()
            offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(_view(values), torch.from_numpy(offsets.astype(np.int64)))

    @property
    def lengths(self) -> Tensor:
        """Lengths of the lists [n]; ones for single values."""
        if self.offsets is None:
            return torch.ones(len(self.values), dtype=torch.int64)
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> _Column:
        """A view of consecutive rows."""
        if self.offsets is None:
            return _Column(self.values[rows])
        offsets = self.offsets[rows.start : rows.stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return _Column(self.values[first:last], offsets - first)

    def permute(self, order: np.ndarray) -> _Column:
        """The rows in another order."""
        index = torch.from_numpy(order)
        if self.offsets is None:
            return _Column(self.values[index])
        lengths, values, _ = torch.ops.fbgemm.permute_1D_sparse_data(
            index.to(torch.int32), self.lengths, self.values, None, len(self.values)
        )
        return _Column(values, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))

    @staticmethod
    def concat(columns: list[_Column]) -> _Column:
        """Columns one under the other; one alone is passed through without a copy."""
        if len(columns) == 1:
            return columns[0]
        values = torch.cat([column.values for column in columns])
        if columns[0].offsets is None:
            return _Column(values)
        lengths = torch.cat([column.lengths for column in columns])
        return _Column(values, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))


def _view(array: pa.Array) -> Tensor:
    values = array.to_numpy(zero_copy_only=False)
    with _quiet():
        return torch.from_numpy(values)


def _quiet() -> Any:
    """Arrow's memory is read-only and torch warns of that; nothing here writes to it."""
    import warnings

    context = warnings.catch_warnings()
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return context
