"""What people should know of the bundle that a verb asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from recsys.serving.manifest import About


def warn_of_other_weights(folder: Path, about: About) -> None:
    """Say where a run was trained again since its bundle was made."""
    from recsys.runs.weights import of_other_weights

    if (told := of_other_weights(folder, about)) is not None:
        typer.echo(f"recsys: {told}", err=True)
