"""What people should know of the bundle that a verb asks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from recsys.serving.manifest import About


def warn_of_other_weights(folder: Path, about: About) -> None:
    """Say where a run was trained again since its bundle was made."""
    from recsys.runs.folder import RunFolder
    from recsys.runs.weights import training_of

    files = RunFolder(folder)
    if files.bundle.exists() and about.training and about.training != training_of(files):
        typer.echo(
            f"recsys: {folder} was trained again since its bundle was made, which answers here as "
            f"before: `recsys run {shlex.quote(str(folder))}` makes it of the new weights",
            err=True,
        )
