"""The verbs that send what differs between bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import Signed
from pipelines.cli.bundles import bundle_in


def delta(
    old: Annotated[Path, typer.Argument(help="The bundle that is in service elsewhere.")],
    new: Annotated[Path, typer.Argument(help="The bundle that is to be.")],
    out: Annotated[Path, typer.Option(help="A folder, or a file whose name ends in .zip.")],
) -> None:
    """Write what differs: vectors, rows and entries that are new, altered or gone.

    Example: recsys bundle delta runs/may runs/june --out june.zip
    """
    from recsys.serving.delta.make import make_delta

    record = make_delta(bundle_in(old), bundle_in(new), out)
    size = sum(path.stat().st_size for path in (out.rglob("*") if out.is_dir() else [out]))
    typer.echo(f"{out}: {size / 1e6:.2f} MB, from {record.base[:12]} to {record.target[:12]}")


def apply(
    delta: Annotated[Path, typer.Argument(help="What `recsys bundle delta` has written.")],
    folder: Annotated[Path, typer.Argument(help="A serving folder, or the folder of a run.")],
    keep: Annotated[int, typer.Option(min=1, help="Newest versions that stay.")] = 3,
    require_signature: Signed = None,
) -> None:
    """Make the new bundle of the one in service and a delta, verify it, and put it in service.

    Example: recsys bundle apply june.zip /srv/shop
    """
    from recsys.serving.delta.apply import apply_delta
    from recsys.serving.releases import CURRENT, releases_in

    releases = releases_in(folder)
    version = apply_delta(delta, releases, keep=keep, signed_by=require_signature)
    typer.echo(f"in service: {releases.folder / CURRENT} -> {version}")
