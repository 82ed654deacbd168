"""Lists that someone else made, from a file, in the place of a retriever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from feature_store.errors import DataError
from feature_store.ids import as_ids
from feature_store.parquet import read_parquet
from feature_store.sources.text_file import is_text, read_whole
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.inputs import Id, Input
from recsys.lists.funnel import Stage
from recsys.lists.merging import BY_SCORE, Merge
from recsys.lists.pairs import Pairs
from recsys.lists.stage_names import LIST
from recsys.retrievers.base import Candidates, Retriever
from recsys.serving.requests import table_of

RANK, SCORE, PROBABILITY = "rank", "score", "probability"


class GivenLists(nn.Module):
    """Recommendations per user, answered as a retriever would.

    Items that a retriever could not return (unknown to the log, no candidate, seen where seen
    items are excluded) are taken out and the list closes up, so that the figures are those of a
    model that ranks alike. `notes` counts them, and everything else that is odd.

    A `probability` column becomes the scores: predicted probabilities of a purchase.
    """

    needs_history = False
    merge: Merge = BY_SCORE
    offsets: Tensor
    items: Tensor
    list_scores: Tensor

    def __init__(
        self, user: str, offsets: Tensor, items: Tensor, scores: Tensor, *, probabilities: bool
    ) -> None:
        super().__init__()
        self.user = user
        self.inputs: tuple[Input, ...] = (Id(user),)
        self.probabilities = probabilities
        self.notes: Counter[str] = Counter()
        # the list of user row u: from offsets[u] up to offsets[u + 1]
        for name, values in (("offsets", offsets), ("items", items), ("list_scores", scores)):
            self.register_buffer(name, values, persistent=False)  # nothing of it was learned here

    @classmethod
    def read(cls, source: Path | pd.DataFrame, examples: Examples) -> GivenLists:
        """Lists from Parquet, CSV or a frame: columns user, item, and rank (1 is best) or score.

        The columns of ids may also be named as in the log. With both, rank decides; among equal
        scores the item whose id comes first.

        Raises:
            DataError: the file cannot be read, a column is missing or of the wrong type, a value
                is null, or no user of the file, or no item of such a user, is in the log.
        """
        table, path = _read(source)
        if not table.num_rows:
            raise DataError(f"{path} holds no lists: it has columns and not one row")
        schema = examples.schema
        user = _ids(table, path, "user", schema.user, examples)
        item = _ids(table, path, "item", schema.item, examples)
        notes: Counter[str] = Counter()
        if not (user > 0).any():
            raise DataError(f"{path}: none of its users is in the log: are ids of the same kind?")
        notes["rows of users who are not in the log"] = int((user == 0).sum())
        notes["recommended items that are not in the log"] = int(((user > 0) & (item == 0)).sum())
        numbers = {name: _numbers(table, path, name) for name in (RANK, SCORE, PROBABILITY)}
        key, score = _sort_key(path, table.column_names, numbers)
        kept = (user > 0) & (item > 0)
        if not kept.any():
            raise DataError(
                f"{path}: none of the items that users of the log are given is in the log: are "
                "ids of the same kind?"
            )
        user, item, key, score = user[kept], item[kept], key[kept], score[kept]
        order = np.lexsort([item, key, user])
        user, item, key, score = user[order], item[order], key[order], score[order]
        again = _repeats(user, item)
        notes["items that a list repeats"] = int(again.sum())
        user, item, key, score = user[~again], item[~again], key[~again], score[~again]
        if numbers[RANK] is not None:
            same = (user[1:] == user[:-1]) & (key[1:] == key[:-1])
            notes["ranks that a list gives twice"] = int(same.sum())
        rows = len(examples.vocabulary(schema.user))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=rows))])
        lists = cls(
            schema.user,
            *(torch.from_numpy(values) for values in (offsets, item, score.astype(np.float32))),
            probabilities=numbers[PROBABILITY] is not None,
        )
        lists.notes = +notes  # without those that did not occur
        return lists

    def prepare(self, candidates: Tensor) -> None:
        """Fix what may be retrieved."""
        self._candidates = candidates

    def variants(self) -> Mapping[str, Retriever]:
        """Nothing but the lists."""
        return {}

    def stages(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Iterator[Stage]:
        """The lists alone."""
        yield Stage(LIST, *self.retrieve(batch, k, exclude), shown=True)

    def retrieve(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Candidates:
        """The first k items of each user's list that may be retrieved."""
        users = batch.id(self.user)
        starts, ends = self.offsets[users], self.offsets[users + 1]
        width = max(1, int((ends - starts).max()))
        positions = starts.unsqueeze(1) + torch.arange(width, device=users.device)
        inside = positions < ends.unsqueeze(1)
        positions = positions.clamp(max=max(0, len(self.items) - 1))
        ids = self.items[positions].masked_fill(~inside, 0)
        self.notes["users without a list"] += int((~inside[:, 0]).sum())
        allowed = torch.isin(ids, self._candidates)
        self.notes["recommended items that are no candidates"] += int((inside & ~allowed).sum())
        keep = inside & allowed
        if exclude is not None:
            seen = exclude.contains(ids)
            self.notes["recommended items that the user has seen"] += int((keep & seen).sum())
            keep &= ~seen
        self.notes = +self.notes
        order = (~keep).to(torch.int8).sort(dim=1, stable=True).indices[:, :k]
        kept = keep.gather(1, order)
        scores = self.list_scores[positions].gather(1, order)
        return Candidates(
            ids.gather(1, order).masked_fill(~kept, 0), scores.masked_fill(~kept, 0.0)
        )


def _read(source: Path | pd.DataFrame) -> tuple[pa.Table, str]:
    """The table, and what messages call it."""
    if isinstance(source, pd.DataFrame):
        return table_of(source), "recommendations"
    name = str(source)
    if not source.exists():
        raise DataError(f"{name} does not exist")
    if is_text(source):
        return read_whole(source), name
    try:
        return read_parquet(source), name
    except DataError as error:
        raise DataError(f"{error}; CSV is known by the names *.csv and *.tsv") from None


def _ids(table: pa.Table, path: str, role: str, name: str, examples: Examples) -> np.ndarray:
    """Vocabulary rows of an id column; 0 = not in the log."""
    column = next((c for c in (name, role) if c in table.column_names), None)
    if column is None:
        have = ", ".join(table.column_names)
        raise DataError(f"{path}: no column {role!r} (or {name!r}); it has: {have}")
    values = _without_nulls(table, path, column)
    vocabulary = examples.vocabulary(name)
    try:
        values = as_ids(values, vocabulary.type)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{path}: column {column!r} holds {values.type}, the log's ids are "
            f"{vocabulary.type}: {error}"
        ) from None
    return vocabulary.encode(values)


def _numbers(table: pa.Table, path: str, column: str) -> np.ndarray | None:
    if column not in table.column_names:
        return None
    kind = table.schema.field(column).type
    whole = pa.types.is_integer(kind)
    try:
        values = _without_nulls(table, path, column).cast(pa.float64(), safe=whole).to_numpy()
    except pa.ArrowException:
        large = "integers beyond 2^53, which cannot all be told apart: scale them down"
        held = large if whole else f"{kind}, not numbers"
        raise DataError(f"{path}: column {column!r} holds {held}") from None
    if np.isnan(values).any():
        raise DataError(f"{path}: row {int(np.isnan(values).argmax())}: {column} is not a number")
    return values


def _without_nulls(table: pa.Table, path: str, name: str) -> pa.ChunkedArray:
    """A column without nulls."""
    column = table.column(name)
    if column.null_count:
        row = int(np.asarray(column.is_null()).argmax())
        raise DataError(
            f"{path}: row {row}: {name} is missing ({column.null_count:,} such rows); "
            "fill it in or leave the rows out"
        )
    return column


def _sort_key(
    path: str, columns: list[str], numbers: dict[str, np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray]:
    """What orders a list, ascending, and the scores of its items."""
    rank, score, probability = (numbers[name] for name in (RANK, SCORE, PROBABILITY))
    scores = score if probability is None else probability
    if rank is not None:
        return rank, -rank if scores is None else scores
    if scores is None:
        have = ", ".join(columns)
        raise DataError(f"{path}: no column 'rank' or 'score' orders its lists; it has: {have}")
    return -(scores if score is None else score), scores


def _repeats(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Of rows sorted from each user's best down: the second and later of the same pair."""
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    again = np.ones(len(pair), dtype=bool)
    again[np.unique(pair, return_index=True)[1]] = False
    return again
