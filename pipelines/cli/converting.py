"""The verbs that put a bundle into other engines."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import Signed
from pipelines.cli.bundles import bundle_in

Folder = Annotated[Path, typer.Argument(help="The folder of a run, or of a bundle.")]
Part = Annotated[
    str | None,
    typer.Option(help="The generator or ranker, where a bundle has several, as cascades do."),
]


class To(StrEnum):
    """What a bundle can be converted to."""

    onnx = "onnx"
    aotinductor = "aotinductor"
    parquet = "parquet"


def convert(
    folder: Folder,
    to: Annotated[
        list[To], typer.Option("--to", help="A format; may be repeated.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="A folder for them, which is not there yet.")],
    part: Part = None,
    require_signature: Signed = None,
) -> None:
    """Write a bundle in formats of other engines, each proved by the golden requests.

    onnx: the program that makes a user's vectors, or a ranker's logits, for onnxruntime.
    aotinductor: the same compiled to native code, for torch's C++ runtime; needs a C++ compiler.
    parquet: the items: ids, vectors and the catalogue's columns.

    Beside them lie about.json (inputs, padding, vocabularies, outputs), the vocabularies and the
    golden requests. What would answer otherwise than the bundle is refused, and nothing is left.

    Example: recsys bundle convert runs/synthetic_quickstart --to onnx --to parquet --out runs/onnx
    """
    from recsys.formats.convert import convert as job
    from recsys.serving.bundle import Bundle

    bundle = Bundle.open(bundle_in(folder), signed_by=require_signature)
    source = job(bundle, [name.value for name in to], out, part)
    typer.echo(
        f"converted: {out}, the {source.record.noun} {source.name} ({source.model}); its golden "
        "requests are answered as by the bundle"
    )


def load(
    folder: Folder,
    into: Annotated[
        str, typer.Option(help="postgresql://USER@HOST:PORT/DATABASE, or lancedb:PATH.")
    ],
    table: Annotated[str, typer.Option(help="The table; one of ours is replaced.")] = "items",
    hnsw: Annotated[
        bool, typer.Option("--hnsw", help="Build an index, which is faster and misses some items.")
    ] = False,
    least_recall: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the exact lists that it must find.")
    ] = 0.95,
    part: Part = None,
    require_signature: Signed = None,
) -> None:
    """Put the items of a bundle, their vectors and the catalogue's columns, into another engine.

    The table is filled aside, asked the golden requests, and then takes the old one's place at
    once: who reads that reads on, and where anything fails it stays. Its id column is `id`, the
    vectors are in `vector`, and scores are inner products.

    postgresql: needs pgvector; ORDER BY vector <#> ... LIMIT k. Leave the password out of the
    address: PGPASSWORD or ~/.pgpass hold it.
    lancedb: PATH is the folder of the database.

    Example: recsys bundle load RUN --into postgresql://recsys@localhost/shop --table items --hnsw
    """
    from recsys.formats.load import load as job
    from recsys.serving.bundle import Bundle

    bundle = Bundle.open(bundle_in(folder), signed_by=require_signature)
    loaded = job(bundle, into, table, part, hnsw=hnsw, least_recall=least_recall)
    share = "" if loaded.recall is None else f"; the index finds {loaded.recall:.3f} of exact lists"
    typer.echo(
        f"loaded: {loaded.rows:,} items into the table {table}; the golden requests are answered "
        f"as by the bundle{share}"
    )
