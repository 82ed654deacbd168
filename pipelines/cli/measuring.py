"""Whether opening a bundle measures its index."""

from __future__ import annotations

from typing import Annotated

import typer

MeasureIndex = Annotated[
    bool,
    typer.Option(
        "--measure-index/--no-measure-index",
        help="Measure again what an index promises, where this is another kind of machine than it "
        "was made on.",
    ),
]
