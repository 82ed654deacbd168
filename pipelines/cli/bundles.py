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


def bundle_in(folder: Path) -> Path:
    """That of a run, the one in service of a serving folder, or the folder itself."""
    from feature_store.transfer import fetched
    from recsys.runs.folder import RunFolder
    from recsys.serving.releases import CURRENT, Releases

    folder = fetched(folder)  # where a URL is given
    if (bundle := RunFolder(folder).bundle).exists():
        return bundle
    return folder if Releases(folder).current is None else folder / CURRENT
