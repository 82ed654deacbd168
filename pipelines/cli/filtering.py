"""Which items may be answered, as the verbs take it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Where = Annotated[
    str | None,
    typer.Option(
        help="Only items for which this holds, over columns of the catalogue, such as "
        '\'genre in ("Drama", "War") and year >= 1990\'.'
    ),
]
Allow = Annotated[
    Path | None,
    typer.Option(help="Only items whose ids are in this file: *.parquet, or text, an id a line."),
]
Forbid = Annotated[Path | None, typer.Option(help="No items whose ids are in this file.")]


def ids_in(path: Path | None, item: str) -> Any:
    """The ids of items in a file; of Parquet those of the column `item`, or of the only one.

    Raises DataError where it cannot be read.
    """
    from feature_store.errors import DataError
    from feature_store.parquet import read_parquet

    if path is None:
        return None
    if path.suffix == ".parquet":
        table = read_parquet(path)
        names = [name for name in (item, "item") if name in table.column_names]
        names = names or table.column_names
        if not names or (len(names) > 1 and item not in names):
            have = ", ".join(table.column_names)
            raise DataError(f"{path} needs a column {item!r} of item ids; it has: {have}")
        return table.column(names[0])
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return [line.strip() for line in lines if line.strip()]
