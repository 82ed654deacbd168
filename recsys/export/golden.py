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
from recsys.export.fallback import popular_by_segment, popular_lately
from recsys.export.requests import raw_requests
from recsys.inputs import History, Input
from recsys.retrievers.base import Candidates
from recsys.serving.fallback import FALLBACK, ITEM, SCORE, SEGMENT
from recsys.serving.manifest import FallbackRecord
from recsys.serving.options import FallbackConfig

GOLDEN_K = 100  # places of a golden answer
_SEGMENTS = 4  # that are asked for, the first


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
    folder: Path,
    golden: pa.Table,
    examples: Examples,
    candidates: Tensor,
    config: FallbackConfig,
) -> tuple[FallbackRecord, pa.Table]:
    """Write `fallback.parquet`; returns its record, and golden requests, now with some without a
    history: of nobody, and of somebody in a segment."""
    popular = popular_lately(examples, candidates)
    record, lists = popular.record, [popular.list]
    tables = [_as_table(popular.list, examples)]
    nothing = pa.table({field.name: pa.nulls(1, field.type) for field in golden.schema})
    asked = [nothing.drop_columns([EXPECTED_ITEMS, EXPECTED_SCORES])]
    if config.by is not None:
        record, segments = popular_by_segment(examples, popular, config)
        kind = examples.schema[config.by].arrow_type
        tables[0] = tables[0].append_column(SEGMENT, pa.nulls(tables[0].num_rows, kind))
        for name, listed in segments:
            table = _as_table(listed, examples)
            tables.append(table.append_column(SEGMENT, pa.repeat(name, table.num_rows)))
        for name, listed in segments[:_SEGMENTS]:
            lists.append(listed)
            somebody = asked[0].drop_columns(
                [config.by] if config.by in golden.column_names else []
            )
            asked.append(somebody.append_column(config.by, pa.repeat(name, 1)))
    write_parquet(pa.concat_tables(tables), folder / FALLBACK)
    unknown = [
        with_answers(request, Candidates(*(column[:, :GOLDEN_K] for column in listed)), examples)
        for request, listed in zip(asked, lists, strict=True)
    ]
    return record, pa.concat_tables([golden, *unknown], promote_options="permissive")


def _as_table(listed: Candidates, examples: Examples) -> pa.Table:
    """A list [1, n] as items and their scores."""
    items, scores = _as_lists(listed, examples.vocabulary(examples.schema.item))
    return pa.table({ITEM: items.flatten(), SCORE: scores.flatten()})


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
