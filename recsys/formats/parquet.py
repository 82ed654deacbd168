"""The items of a generator as a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from feature_store.durable import write_parquet
from feature_store.parquet import read_parquet
from recsys.formats.items import ID, ROW, VECTOR, generator_of, items_table, told_of
from recsys.formats.source import Source

FILE = "items.parquet"
METADATA = b"recsys"


def write_items(source: Source, folder: Path) -> list[str]:
    """Write `items.parquet`, read it and search it for the golden requests.

    Its metadata `recsys` is JSON with the vectors' space, width and metric. Returns its name.

    Raises DataError for a ranker, or where an answer differs.
    """
    generator = generator_of(source, "a file of items")
    path = folder / FILE
    told = json.dumps(told_of(generator)).encode()
    write_parquet(items_table(generator), path, metadata={METADATA: told})
    table = read_parquet(path).combine_chunks()
    generator.check_items(_items(table), table.column(ID).combine_chunks(), "the file of items")
    return [FILE]


def _items(table: pa.Table) -> torch.Tensor:
    """Vectors [N, D], or places [N] of scores."""
    if ROW in table.column_names and VECTOR not in table.column_names:
        return torch.from_numpy(table.column(ROW).to_numpy())
    vectors = table.column(VECTOR).combine_chunks()
    numbers: np.ndarray = vectors.flatten().to_numpy()
    return torch.from_numpy(numbers.reshape(len(vectors), vectors.type.list_size).copy())
