"""The options of `recsys serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="A bundle, a link to one, or the folder of a run.")]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for any.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen at.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File of a token to ask for; by default the variable RECSYS_TOKEN."),
]
MaxBody = Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")]
Queue = Annotated[
    int, typer.Option(min=1, help="Questions that may wait; beyond them: status 429.")
]
DeadlineMs = Annotated[
    float, typer.Option(min=1, help="After it a question is given up: status 503.")
]
WindowMs = Annotated[
    float, typer.Option(min=0, help="Questions that come within it are one batch.")
]
MaxBatch = Annotated[int, typer.Option(min=1, help="Questions of a batch.")]
WatchS = Annotated[
    float, typer.Option(min=0, help="Seconds between looks for another bundle; 0 for none.")
]
DrainS = Annotated[
    float, typer.Option(min=0.1, help="Seconds in which a stop answers what it has.")
]
AcceptItems = Annotated[
    bool, typer.Option("--accept-items", help="Add new items that come, in new versions.")
]
Explorer = Annotated[bool, typer.Option(help="A page for people at /.")]
Beside = Annotated[
    Path | None, typer.Option(help="A bundle, or a run, that the page shows beside it.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Of a batch; by default half of the processors.")
]
Workers = Annotated[
    int,
    typer.Option(min=1, help="Processes that answer, each with the bundle in its memory."),
]
Users = Annotated[
    str | None,
    typer.Option(
        help="A store of users' newest histories, such as sqlite:///users.db, which takes events."
    ),
]
Exposures = Annotated[
    Path | None, typer.Option(help="Folder of a log of what was shown; `recsys ingest` reads it.")
]
Explore = Annotated[
    list[str] | None,
    typer.Option(help="How lists explore: share=0.1, keep=2, pool=50, temperature=0.5."),
]
Arm = Annotated[
    list[str] | None,
    typer.Option(help="NAME=SHARE=BUNDLE: another bundle for a share of the users."),
]
Salt = Annotated[str, typer.Option(help="Another one divides users into other arms.")]
MCP = Annotated[
    bool,
    typer.Option("--mcp", help="Serve tools of the Model Context Protocol on stdin and stdout."),
]
