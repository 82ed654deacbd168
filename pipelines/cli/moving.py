"""The verbs that move folders to object storage and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feature_store.storage import Remote

Replace = Annotated[bool, typer.Option("--replace", help="Overwrite, or remove, what is there.")]
There = Annotated[str, typer.Argument(help="A URL, such as s3://bucket/runs/shop.")]


def push(
    folder: Annotated[Path, typer.Argument(help="A store, examples, a bundle, a run: any folder.")],
    to: There,
    replace: Replace = False,
) -> None:
    """Upload a folder to object storage; files that are there already are not sent again.

    Example: recsys push runs/synthetic_quickstart/bundle s3://shop/bundles/quickstart
    """
    from feature_store.transfer import push as upload

    done = upload(folder, _remote(to), replace=replace)
    typer.echo(f"{to}: {done.files:,} files, {done.bytes:,} bytes; {done.uploaded:,} were new")


def pull(
    source: There,
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    replace: Replace = False,
) -> None:
    """Fetch a folder that was pushed, compare it with its checksums, and put it there whole.

    Example: recsys pull s3://shop/bundles/quickstart served
    """
    from feature_store.transfer import pull as fetch

    contents = fetch(_remote(source), folder, replace=replace)
    typer.echo(f"{folder}: {len(contents.files):,} files, {contents.bytes:,} bytes")


def _remote(url: str) -> Remote:
    from feature_store.errors import DataError
    from feature_store.storage import Remote, place

    at = place(url)
    if not isinstance(at, Remote):
        raise DataError(f"{url} is no URL of object storage, such as s3://bucket/folder")
    return at
