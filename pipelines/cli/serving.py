"""The verb that answers over HTTP, or over MCP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import Signed, bundle_in


def serve(
    folder: Annotated[
        Path, typer.Argument(help="A bundle, a link to one, or the folder of a run.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for any.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen at.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File of a token to ask for; by default the variable RECSYS_TOKEN."),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 1 << 20,
    queue: Annotated[
        int, typer.Option(min=1, help="Questions that may wait; beyond them: status 429.")
    ] = 1024,
    deadline_ms: Annotated[
        float, typer.Option(min=1, help="After it a question is given up: status 503.")
    ] = 2000,
    window_ms: Annotated[
        float, typer.Option(min=0, help="Questions that come within it are one batch.")
    ] = 1.0,
    max_batch: Annotated[int, typer.Option(min=1, help="Questions of a batch.")] = 128,
    watch_s: Annotated[
        float, typer.Option(min=0, help="Seconds between looks for another bundle; 0 for none.")
    ] = 1.0,
    drain_s: Annotated[
        float, typer.Option(min=0.1, help="Seconds in which a stop answers what it has.")
    ] = 10,
    explorer: Annotated[bool, typer.Option(help="A page for people at /.")] = True,
    beside: Annotated[
        Path | None, typer.Option(help="A bundle, or a run, that the page shows beside it.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of a batch; by default half of the processors.")
    ] = None,
    mcp: Annotated[
        bool,
        typer.Option(
            "--mcp", help="Serve tools of the Model Context Protocol on stdin and stdout."
        ),
    ] = False,
    require_signature: Signed = None,
) -> None:
    """Answer from a bundle over HTTP, and on a page; needs torch, but neither torchrec nor fbgemm.

    Example: recsys serve runs/synthetic_quickstart --port 8000
    """
    from recsys.server.extra import needs

    with needs("server"):
        from recsys.server.auth import Token
        from recsys.server.options import ServerOptions
        from recsys.server.run import prepare
        from recsys.server.run import serve as answer
        from recsys.server.service import Service
    if mcp:
        with needs("mcp"):
            from recsys.server.mcp import serve_mcp
    options = ServerOptions(
        host=host,
        port=port,
        max_body=max_body,
        queue=queue,
        deadline_ms=deadline_ms,
        window_ms=window_ms,
        max_batch=max_batch,
        watch_s=watch_s,
        drain_s=drain_s,
        explorer=explorer,
        beside=None if beside is None else bundle_in(beside),
        threads=threads,
        signed_by=require_signature,
    )
    token = Token.read(token_file)
    prepare(options.threads)
    service = Service(bundle_in(folder), options)
    if mcp:
        serve_mcp(service)
    else:
        answer(service, token)
