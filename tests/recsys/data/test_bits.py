"""A bit that flips in a file of examples is an error that names the file, not another value."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader


def test_a_flipped_bit_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    """In the numbers themselves, which nothing but a checksum tells from others."""
    path = tmp_path / "rows.parquet"
    # of the largest entropy, so that the pages are as long as their values
    values = [pow(7, n, 2**61 - 1) for n in range(5_000)]
    write_parquet(pa.table({"x": pa.array(values, pa.int64())}), path)
    column = pq.read_metadata(path).row_group(0).column(0)
    assert pq.read_table(path).column("x").to_pylist() == values
    contents = bytearray(path.read_bytes())
    contents[column.data_page_offset - 20_000] ^= 4
    path.write_bytes(contents)
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read"):
        list(Reader(path, ReaderConfig(batch_size=32)))
