"""Public formats, one file each, and the registry of them."""

from typing import Annotated

from pydantic import Field

from feature_store.sources.amazon import Amazon
from feature_store.sources.amazon_electronics import AmazonElectronics
from feature_store.sources.base import BadRow, RawChunk, Source
from feature_store.sources.book_crossing import BookCrossing
from feature_store.sources.edge_list import EdgeList
from feature_store.sources.fractal import Fractal
from feature_store.sources.movielens import MovieLens
from feature_store.sources.online_retail import OnlineRetail
from feature_store.sources.parquet import ParquetLog
from feature_store.sources.synthetic import Synthetic
from feature_store.sources.ta_feng import TaFeng
from feature_store.sources.trivago import Trivago

SOURCES: dict[str, type[Source]] = {
    "amazon": Amazon,
    "amazon_electronics": AmazonElectronics,
    "book_crossing": BookCrossing,
    "edge_list": EdgeList,
    "fractal": Fractal,
    "movielens": MovieLens,
    "online_retail": OnlineRetail,
    "parquet": ParquetLog,
    "synthetic": Synthetic,
    "ta_feng": TaFeng,
    "trivago": Trivago,
}
SourceConfig = Annotated[
    Amazon
    | AmazonElectronics
    | BookCrossing
    | EdgeList
    | Fractal
    | MovieLens
    | OnlineRetail
    | ParquetLog
    | Synthetic
    | TaFeng
    | Trivago,
    Field(discriminator="source"),
]

__all__ = ["SOURCES", "BadRow", "RawChunk", "Source", "SourceConfig"]
