"""The verbs that put bundles in service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.answers import Format, print_answers
from pipelines.cli.arguments import Signed
from pipelines.cli.bundles import bundle_in

Folder = Annotated[Path, typer.Argument(help="A serving folder, or the folder of a run.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle, or the folder of a run or of versions.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")]


def verify(folder: Bundle, as_json: AsJson = False, require_signature: Signed = None) -> None:
    """Check the files of a bundle, and ask all of its parts their golden requests.

    A line for the files and for every part; the status is 1 where anything is not as it should be.

    Example: recsys bundle verify runs/synthetic_quickstart
    """
    from pipelines.printer import say
    from recsys.serving.verifying import checks

    bundle = bundle_in(folder)
    done = checks(bundle, signed_by=require_signature)
    well = all(check.well for check in done)
    if as_json:
        parts = {check.part: {**check._asdict()} for check in done}
        typer.echo(json.dumps({"bundle": str(bundle), "well": well, "checks": parts}))
    else:
        for check in done:
            said = "well" if check.well else "NOT WELL"
            say(f"{check.part}: {said}: {check.told} ({check.seconds:.2f} s)")
    if not well:
        raise typer.Exit(1)


def publish(
    bundle: Bundle,
    folder: Annotated[Path, typer.Argument(help="The serving folder; it is made.")],
    keep: Annotated[int, typer.Option(min=1, help="Newest versions that stay.")] = 3,
    require_signature: Signed = None,
) -> None:
    """Copy a bundle into a serving folder, verify the copy, and put it in service in one step.

    Example: recsys bundle publish runs/synthetic_quickstart /srv/shop
    """
    from recsys.serving.releases import CURRENT, Releases

    releases = Releases(folder)
    version = releases.publish(bundle_in(bundle), keep=keep, signed_by=require_signature)
    typer.echo(f"in service: {folder / CURRENT} -> {version}")


def list_versions(folder: Folder, form: Format = None) -> None:
    """The versions that are there, oldest first, and which is in service.

    Example: recsys bundle list runs/synthetic_quickstart
    """
    import pyarrow as pa

    from recsys.serving.releases import releases_in

    rows = [release._asdict() for release in releases_in(folder).releases]
    for row in rows:
        row["published"] = row["published"].isoformat(timespec="seconds")
    print_answers(pa.Table.from_pylist(rows), form)


def rollback(
    folder: Folder,
    to: Annotated[
        str | None, typer.Option(help="A version; by default the one before that in service.")
    ] = None,
) -> None:
    """Put an earlier version in service, once it is verified.

    Example: recsys bundle rollback runs/synthetic_quickstart
    """
    from recsys.serving.releases import CURRENT, releases_in

    releases = releases_in(folder)
    before = releases.current
    version = releases.rollback(to)
    typer.echo(f"in service: {releases.folder / CURRENT} -> {version} (before: {before})")
