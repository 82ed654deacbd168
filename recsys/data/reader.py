"""Reader: row groups of Parquet -> batches, shuffled, split over ranks, resumable at the row.

The order of rows is a pure function of the seed and the epoch, never of the number of processes:

    row groups, permuted -> `lanes` spans of equal length -> blocks of row groups
                         -> rows permuted within the block -> one slice of every batch

A rank reads whole lanes; lane l gives the l-th slice of each batch. With `lanes` fixed, one
process and several see the same batches.

Rows that belong together are permuted together, and no batch cuts them but where a block ends.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from feature_store.errors import ConfigError, DataError
from feature_store.parquet import open_parquet
from feature_store.storage import Place, Remote, place
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.options import ReaderConfig

_REQUESTS = 32  # of object storage, at once


@dataclass(frozen=True)
class _BlockPlan:
    """Consecutive batches of a lane, and the parts of row groups that hold their rows."""

    first_batch: int
    sizes: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]  # (row group, first row, last row + 1)


class Reader:
    """Iterates over the batches of one epoch after another; see the module's picture.

    Files may lie in object storage: then all row groups ahead are fetched at once, and of each
    nothing but the bytes of `columns`. At most `(workers + 1) * buffer_row_groups` row groups per
    lane of this rank are in memory. Every rank gives the same number of batches. `max_lengths`
    keeps only the last values of a list. Sequence batches are bucketed by the length of
    `bucket_by`. Shuffled rows of the same id `together`, 0 apart, come in one batch, as long as it
    holds them: batches then differ in size and are not bucketed.
    """

    def __init__(
        self,
        path: Place | str | Sequence[Place],
        config: ReaderConfig,
        *,
        columns: list[str] | None = None,
        max_lengths: dict[str, int] | None = None,
        bucket_by: str | None = None,
        together: str | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.files = [place(p) for p in ([path] if isinstance(path, Place | str) else path)]
        self.config = config
        self.max_lengths = max_lengths or {}
        self.bucket_by = bucket_by if shuffle and config.bucket_batches else None
        self.together = together if shuffle else None
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world = rank, world
        self.lanes = config.lanes or world
        if self.lanes % world:
            raise ConfigError(f"reader.lanes = {self.lanes} cannot be split over {world} processes")
        if config.batch_size < self.lanes:
            raise ConfigError(f"reader.batch_size must be at least the {self.lanes} lanes")
        self.schema = open_parquet(self.files[0]).schema_arrow
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
    def _footers(self) -> dict[Place, pq.FileMetaData]:
        with ThreadPoolExecutor(_REQUESTS if self._remote else 1) as pool:
            footers = pool.map(lambda path: open_parquet(path).metadata, self.files)
            return dict(zip(self.files, footers, strict=True))

    @property
    def _remote(self) -> bool:
        return isinstance(self.files[0], Remote)

    @cached_property
    def _row_groups(self) -> list[tuple[Place, int, int]]:
        """Every row group: its file, its number there, and its rows."""
        return [
            (path, index, footer.row_group(index).num_rows)
            for path, footer in self._footers.items()
            for index in range(footer.num_row_groups)
        ]

    @cached_property
    def num_rows(self) -> int:
        """Rows of an epoch, over all ranks."""
        return sum(rows for _, _, rows in self._row_groups)

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        if self.num_rows < self.lanes:
            raise DataError(
                f"{self.files[0].parent} holds {self.num_rows:,} rows, too few for {self.lanes} "
                f"lanes: start at most {self.num_rows} processes, or lower reader.lanes"
            )
        # the shortest lane decides, so that no lane has an empty slice
        batches = -(-self.num_rows // self.config.batch_size)
        return max(1, min(batches, self.num_rows // self.lanes))

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over the footers: other files, another position in them."""
        digest = hashlib.sha256()
        for footer in self._footers.values():
            groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
            digest.update(repr([(g.num_rows, g.total_byte_size) for g in groups]).encode())
        return digest.hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        """The position: the next batch of the epoch, in these files."""
        position = {"epoch": self.epoch, "next_batch": self._next_batch}
        return {**position, "examples": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Go to a saved position; the next iteration starts there, reading nothing before it.

        In other files than those it was saved in, a position within an epoch means nothing: the
        epoch then begins anew, and the answer is False.
        """
        same = state["examples"] == self.fingerprint
        self.epoch = state["epoch"]
        self._next_batch = state["next_batch"] if same else 0
        return same

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the current epoch; then the epoch is over and the next one begins."""
        lanes = range(
            self.rank * self.lanes // self.world, (self.rank + 1) * self.lanes // self.world
        )
        streams = [self._lane(lane, self._next_batch) for lane in lanes]
        for slices in zip(*streams, strict=True):
            self._next_batch += 1
            yield Block.concat(list(slices)).to_batch()
        self.epoch, self._next_batch = self.epoch + 1, 0

    # -- what lies where -------------------------------------------------------------------

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, *stream])

    def _blocks(self, lane: int) -> list[_BlockPlan]:
        """The lane's batches, grouped so that each block touches few row groups."""
        order = np.arange(len(self._row_groups))
        if self.shuffle:
            order = self._rng(0).permutation(order)
        ends = np.cumsum([self._row_groups[g][2] for g in order])
        first, last = (self.num_rows * k // self.lanes for k in (lane, lane + 1))
        count = len(self)
        cuts = first + np.arange(count + 1) * (last - first) // count
        # positions in `order` of the row groups that hold each batch's first and last row
        low = np.searchsorted(ends, cuts[:-1], side="right")
        high = np.searchsorted(ends, cuts[1:] - 1, side="right")
        blocks, start = [], 0
        while start < count:
            stop = start + 1
            limit = low[start] + self.config.buffer_row_groups
            while stop < count and high[stop] < limit:
                stop += 1
            parts = []
            for position in range(low[start], high[stop - 1] + 1):
                group, end = int(order[position]), ends[position]
                begin = end - self._row_groups[group][2]
                a, b = max(cuts[start], begin) - begin, min(cuts[stop], end) - begin
                parts.append((group, int(a), int(b)))
            sizes = tuple(int(size) for size in np.diff(cuts[start : stop + 1]))
            blocks.append(_BlockPlan(start, sizes, tuple(parts)))
            start = stop
        return blocks

    # -- rows ------------------------------------------------------------------------------

    def _lane(self, lane: int, first_batch: int) -> Iterator[Block]:
        """The lane's slice of every batch from `first_batch` on, blocks prepared in threads."""
        blocks = [b for b in self._blocks(lane) if b.first_batch + len(b.sizes) > first_batch]
        # a request waits longer than its rows take to decode: all blocks ahead are asked for
        requests = self.config.workers * self.config.buffer_row_groups if self._remote else 0
        with (
            ThreadPoolExecutor(max(self.config.workers, min(requests, _REQUESTS))) as decoders,
            ThreadPoolExecutor(self.config.workers) as shufflers,
        ):
            loading = self._loading(blocks, lane, decoders, shufflers)
            ahead = deque(itertools.islice(loading, self.config.workers))
            for block in blocks:
                rows, cuts = ahead.popleft().result()
                ahead.extend(itertools.islice(loading, 1))
                for number, (start, end) in enumerate(itertools.pairwise(cuts), block.first_batch):
                    if number >= first_batch:
                        yield rows[start:end]

    def _loading(
        self, blocks: list[_BlockPlan], lane: int, decoders: Executor, shufflers: Executor
    ) -> Iterator[Future[tuple[Block, list[int]]]]:
        """Each block's rows to come, and where they are cut into batches. Neighbours share a row
        group; it is decoded once."""
        tables: dict[int, Future[pa.Table]] = {}
        for block in blocks:
            tables = {
                group: tables.get(group) or decoders.submit(self._decode, group)
                for group, _, _ in block.parts
            }
            yield shufflers.submit(self._shuffle, block, lane, tables)

    def _decode(self, group: int) -> pa.Table:
        path, index, _ = self._row_groups[group]
        with _readable(path), open_parquet(path, self._footers[path]) as file:
            return file.read_row_group(index, columns=self.schema.names, use_threads=False)

    def _shuffle(
        self, block: _BlockPlan, lane: int, tables: dict[int, Future[pa.Table]]
    ) -> tuple[Block, list[int]]:
        """A block's rows, permuted, and where they are cut into batches."""
        parts = [tables[group].result().slice(a, b - a) for group, a, b in block.parts]
        rows = Block.of(pa.concat_tables(parts), self.max_lengths)
        bounds = np.concatenate([[0], np.cumsum(block.sizes)])
        if not self.shuffle:
            return rows, bounds.tolist()
        rng = self._rng(1, lane, block.first_batch)
        groups = self._groups(rows)
        order = rng.permutation(len(rows))
        if groups is not None:
            order = np.argsort(order[groups], kind="stable")
            bounds = _between(groups[order], bounds)
        elif self.bucket_by is not None:
            order = self._bucket(order, rows.lists[self.bucket_by].lengths, bounds, rng)
        return rows.permute(order), bounds.tolist()

    def _groups(self, rows: Block) -> np.ndarray | None:
        """Numbers [n] below n that rows share which come together; None where none do."""
        if self.together is None:
            return None
        ids = rows.ids[:, rows.id_names.index(self.together)].numpy()
        own = np.where(ids == 0, -1 - np.arange(len(ids)), ids)  # a row without an id is alone
        return np.unique(own, return_inverse=True)[1]

    def _bucket(
        self, order: np.ndarray, lengths: Tensor, bounds: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Sort runs of batches by length, then give each batch a random position in its run."""
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


def _between(groups: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """`bounds` [m] of batches, moved back to where the row before is of another group; one that
    would leave its batch without a row stays, and cuts a group."""
    edges = np.concatenate([[0], np.flatnonzero(groups[1:] != groups[:-1]) + 1, [len(groups)]])
    moved = edges[np.searchsorted(edges, bounds, side="right") - 1]
    for cut in range(1, len(moved)):
        if moved[cut] <= moved[cut - 1]:
            moved[cut] = bounds[cut]
    return moved


@contextmanager
def _readable(path: Place) -> Iterator[None]:
    """Absent, truncated and corrupt files as errors that name the file."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
