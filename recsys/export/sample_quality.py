"""How good a model is on a fixed sample: what quantised tables may not spoil."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from feature_store.columns import HISTORY, TARGET
from feature_store.parquet import read_parquet
from feature_store.protocols import TEST, VALIDATION
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.evaluation.pointwise import auc
from recsys.lists.pairs import Pairs, contains
from recsys.rankers.base import Ranker
from recsys.retrievers.base import VectorRetriever

SAMPLE_K = 100
_REQUESTS = 256


def sample_recall(retriever: VectorRetriever, examples: Examples, count: int) -> float:
    """Mean recall@100 over the first `count` requests that have a history and unseen targets."""
    names = [HISTORY, TARGET, *(column.name for column in retriever.inputs)]
    recall, asked = 0.0, 0
    for batch in sample_batches(examples, names, count):
        seen, targets = batch.padded(HISTORY), batch.padded(TARGET)
        lists = retriever.retrieve(batch, SAMPLE_K, Pairs.of_padded(seen)).ids
        targets = targets.masked_fill(contains(seen, targets), 0)
        judged = (targets != 0).any(1) & (seen != 0).any(1)
        hits = (contains(targets, lists) & (lists != 0)).sum(1)
        recall += float((hits / (targets != 0).sum(1).clamp(min=1))[judged].sum())
        asked += int(judged.sum())
    return recall / max(1, asked)


def sample_auc(ranker: Ranker, examples: Examples, count: int) -> float:
    """AUC of the first `count` labelled rows, the mean over all tasks with labels there."""
    names = [*ranker.judged_by, *(column.name for column in ranker.inputs)]
    batches = list(sample_batches(examples, names, count))
    labels = torch.cat([ranker.labels(batch) for batch in batches])
    scores = torch.cat([ranker.predict(batch) for batch in batches])
    areas = []
    for of_task, score in zip(labels.T, scores.T, strict=True):
        known = ~of_task.isnan()
        if known.any():
            areas.append(auc(of_task[known], score[known]))
    return float(np.nanmean(areas))


def sample_batches(examples: Examples, names: list[str], count: int) -> Iterator[Batch]:
    """The first `count` requests of the validation, or where there is none of the test."""
    role = VALIDATION if VALIDATION in examples.summary.rows else TEST
    file = examples.folder / f"{role}.parquet"
    table = read_parquet(file, list(dict.fromkeys(names)))
    for start in range(0, min(count, table.num_rows), _REQUESTS):
        rows = table.slice(start, min(_REQUESTS, count - start)).combine_chunks()
        yield Block.of(rows).to_batch()
