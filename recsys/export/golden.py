"""Golden requests: the first of the test, with the training stack's own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import Tensor

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES, HISTORY
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.export.fallback import popular_lately
from recsys.export.requests import raw_requests
from recsys.inputs import History, Input
from recsys.retrievers.base import Candidates
from recsys.serving.fallback import FALLBACK, ITEM, SCORE
from recsys.serving.manifest import FallbackRecord

GOLDEN_K = 100  # places of a golden answer


def golden_requests(
    examples: Examples, inputs: tuple[Input, ...], count: int, *, needs_history: bool
) -> tuple[Batch, pa.Table]:
    """The first test requests that can be answered, as a batch and with raw ids.

    Raises DataError where there is none.
    """
    table = read_parquet(examples.folder / "test.parquet")
    if needs_history:
        lengths = np.diff(table.column(HISTORY).combine_chunks().offsets)
        table = table.take(pa.array(np.flatnonzero(lengths)))
        if not table.num_rows:
            raise DataError("no test request has a history: nothing to verify the bundle with")
    chosen = table.slice(0, count).combine_chunks()
    wanted = (History(examples.schema.item), *inputs)
    names = list(dict.fromkeys(asked.name for asked in wanted))
    requests = raw_requests(examples, chosen, wanted)
    return Block.of(chosen.select(names)).to_batch(), requests


def write_fallback(
    folder: Path, golden: pa.Schema, examples: Examples, candidates: Tensor
) -> tuple[FallbackRecord, pa.Table]:
    """Write `fallback.parquet`; returns its record, and a golden request without a history."""
    record, popular = popular_lately(examples, candidates)
    items, scores = (
        column.flatten() for column in _as_lists(popular, examples.vocabulary(examples.schema.item))
    )
    write_parquet(pa.table({ITEM: items, SCORE: scores}), folder / FALLBACK)
    first = Candidates(*(column[:, :GOLDEN_K] for column in popular))
    nothing = pa.table({field.name: pa.nulls(1, field.type) for field in golden})
    asked = nothing.drop_columns([EXPECTED_ITEMS, EXPECTED_SCORES])
    return record, with_answers(asked, first, examples).cast(golden)


def with_answers(requests: pa.Table, answers: Candidates, examples: Examples) -> pa.Table:
    """The requests with their answers beside them, as raw ids."""
    items, scores = _as_lists(answers, examples.vocabulary(examples.schema.item))
    return requests.append_column(EXPECTED_ITEMS, items).append_column(EXPECTED_SCORES, scores)


def _as_lists(answers: Candidates, vocabulary: Vocabulary) -> tuple[pa.ListArray, pa.ListArray]:
    """Raw ids and scores of answers [B, k], without what fills up short lists."""
    items, scores = [], []
    for ids, values in zip(answers.ids, answers.scores, strict=True):
        kept = ids != 0
        items.append(vocabulary.decode(ids[kept].numpy()).to_pylist())
        scores.append(values[kept].tolist())
    return (
        pa.array(items, pa.list_(vocabulary.values.type)),
        pa.array(scores, pa.list_(pa.float32())),
    )
