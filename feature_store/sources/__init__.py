"""Public formats, one file each, and the registry of them."""

from typing import Annotated

from pydantic import Field

from feature_store.sources.base import BadRow, RawChunk, Source
from feature_store.sources.movielens import MovieLens
from feature_store.sources.parquet import ParquetLog
from feature_store.sources.synthetic import Synthetic

SOURCES: dict[str, type[Source]] = {
    "movielens": MovieLens,
    "parquet": ParquetLog,
    "synthetic": Synthetic,
}
SourceConfig = Annotated[MovieLens | ParquetLog | Synthetic, Field(discriminator="source")]

__all__ = ["SOURCES", "BadRow", "RawChunk", "Source", "SourceConfig"]
