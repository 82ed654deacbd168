"""The explanations of a run's ranker, over a sample of its test: `explanations.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from feature_store.durable import write_text
from feature_store.parquet import read_parquet
from feature_store.protocols import TEST
from recsys.config import RunConfig
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.evaluation.explanations import Explained, concept_areas
from recsys.model import answering
from recsys.rankers.base import Ranker
from recsys.runs.folder import RunFolder

ROWS = 1024  # of the test, drawn by the run's seed
_AT_A_TIME = 256


def explanations(
    config: RunConfig, examples: Examples, ranker: Ranker, device: torch.device
) -> dict[str, Any]:
    """What the ranker's concepts contribute, how well it knows those of items, and examples."""
    schema = examples.schema
    with answering(ranker):
        batches = _sample(ranker, examples, config.seed)
        explained = Explained.of(ranker, batches, schema.user, device)
        items, areas = concept_areas(ranker, examples.num_items, device)
    concepts = [
        {
            "name": concept["name"],
            "items": int(items[concept["place"]]),
            "auc": _none_if_nan(areas[concept["place"]]),
            "size": concept["size"],
            "mean": concept["mean"],
        }
        for concept in explained.concepts(ranker.concepts)
    ]
    users, things = (
        examples.vocabulary(name).decode(rows)
        for name, rows in ((schema.user, explained.users), (schema.item, explained.items))
    )
    return {
        "rows": len(explained.labels),
        "concept_auc": _none_if_nan(_mean(areas)),
        "concepts": concepts,
        "examples": explained.examples(ranker.concepts, users, things, config.seed),
    }


def write_explanations(files: RunFolder, told: dict[str, Any] | None) -> None:
    """Write them; of a ranker that has none, those of an earlier one go."""
    if told is None:
        files.explanations.unlink(missing_ok=True)
    else:
        write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", files.explanations)


def _sample(ranker: Ranker, examples: Examples, seed: int) -> Iterator[Batch]:
    """Rows of the test in their order; every process draws the same."""
    names = [*(asked.name for asked in ranker.inputs), *ranker.judged_by, examples.schema.user]
    table = read_parquet(examples.folder / f"{TEST}.parquet", list(dict.fromkeys(names)))
    rng, rows = np.random.default_rng(seed), table.num_rows
    drawn = np.sort(rng.choice(rows, min(ROWS, rows), replace=False))
    sample = table.take(pa.array(drawn)).combine_chunks()
    for first in range(0, len(drawn), _AT_A_TIME):
        yield Block.of(sample.slice(first, _AT_A_TIME).combine_chunks()).to_batch()


def _mean(areas: np.ndarray) -> float:
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
