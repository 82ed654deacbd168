"""The verb that says who made a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.bundles import bundle_in


def sign(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a bundle.")],
    key: Annotated[Path, typer.Option(help="A private Ed25519 key (PEM), without a password.")],
) -> None:
    """Sign a bundle, for --require-signature: whoever has the public key knows who made it.

    Example: recsys bundle sign runs/synthetic_quickstart --key key.pem
    """
    from recsys.serving.bundle import Bundle
    from recsys.serving.signature import SIGNATURE

    bundle = Bundle.open(bundle_in(folder))
    bundle.sign(key)
    typer.echo(f"signed: {bundle.folder / SIGNATURE}")
