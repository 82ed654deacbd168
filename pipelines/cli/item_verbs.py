"""`recsys items ...`: items of a bundle in service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

items = typer.Typer(no_args_is_help=True, help="Bring new items into a bundle in service.")


@items.command()
def add(
    folder: Annotated[Path, typer.Argument(help="A serving folder, or the folder of a run.")],
    table: Annotated[
        Path,
        typer.Argument(
            help="Items, one a row, with their texts: *.parquet, *.csv or *.jsonl. Those that the "
            "bundle finds already are passed over."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Keep the delta, for `recsys bundle apply` elsewhere.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The private key, where the bundle is signed.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Newest versions that stay.")] = 3,
) -> None:
    """Encode new items from their texts, without a training, and put a bundle in service that finds
    them and reads them in histories. It is for models that know items by their texts alone, such as
    recformer.

    Example: recsys items add runs/amazon_beauty_recformer items.parquet
    """
    from recsys.serving.additions.publish import publish_items
    from recsys.serving.releases import CURRENT, releases_in

    releases = releases_in(folder)
    told = items_in(table)
    published = publish_items(releases, told, out=out, key=key, keep=keep)
    known = told.num_rows - published.added
    typer.echo(f"added: {published.added:,} items" + (f"; {known:,} were there" if known else ""))
    typer.echo(f"in service: {releases.folder / CURRENT} -> {published.version}")


def items_in(path: Path) -> Any:
    """The table in a file. Raises DataError where it cannot be read."""
    import pyarrow as pa
    from pyarrow import csv, json

    from feature_store.errors import DataError
    from feature_store.parquet import read_parquet

    if path.suffix == ".parquet":
        return read_parquet(path)
    readers: dict[str, Any] = {".csv": csv.read_csv, ".jsonl": json.read_json}
    if path.suffix not in readers:
        raise DataError(f"{path} is no *.parquet, *.csv or *.jsonl")
    try:
        return readers[path.suffix](path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
