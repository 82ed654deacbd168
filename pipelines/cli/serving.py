"""The verb that answers over HTTP, or over MCP."""

from __future__ import annotations

from socket import socket

from pipelines.cli import serving_options as given
from pipelines.cli.arguments import Signed
from pipelines.cli.bundles import bundle_in
from pipelines.cli.measuring import MeasureIndex


def serve(
    folder: given.Folder,
    host: given.Host = "127.0.0.1",
    port: given.Port = 8000,
    token_file: given.TokenFile = None,
    max_body: given.MaxBody = 1 << 20,
    queue: given.Queue = 1024,
    deadline_ms: given.DeadlineMs = 2000,
    window_ms: given.WindowMs = 1.0,
    max_batch: given.MaxBatch = 128,
    watch_s: given.WatchS = 1.0,
    drain_s: given.DrainS = 10,
    accept_items: given.AcceptItems = False,
    explorer: given.Explorer = True,
    beside: given.Beside = None,
    threads: given.Threads = None,
    workers: given.Workers = 1,
    users: given.Users = None,
    exposures: given.Exposures = None,
    explore: given.Explore = None,
    arm: given.Arm = None,
    salt: given.Salt = "",
    mcp: given.MCP = False,
    measure_index: MeasureIndex = True,
    require_signature: Signed = None,
) -> None:
    """Answer from a bundle over HTTP, and on a page; needs torch, but neither torchrec nor fbgemm.

    Example: recsys serve runs/synthetic_quickstart --port 8000
    """
    from feature_store.errors import ConfigError
    from pipelines.cli.arms import arm_in, exploration
    from pipelines.cli.known_users import kept
    from recsys.server.extra import needs
    from recsys.server.together import count_together

    if workers > 1:
        if mcp:
            raise ConfigError("--workers are of a server over HTTP: there is one stdin for --mcp")
        count_together()
    with needs("server"):
        from recsys.server.auth import Token
        from recsys.server.options import ServerOptions
        from recsys.server.run import prepare
        from recsys.server.run import serve as answer
        from recsys.server.service import Service
        from recsys.server.workers import listening, tell_all, work_together
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
        accept_items=folder if accept_items else None,
        explorer=explorer,
        beside=None if beside is None else bundle_in(beside),
        threads=threads,
        exposures=exposures,
        explore=exploration(explore),
        arms=dict(map(arm_in, arm or ())),
        salt=salt,
        measure_index=measure_index,
        signed_by=require_signature,
    )
    token, path = Token.read(token_file), bundle_in(folder)
    if mcp:
        prepare(options.threads)
        return serve_mcp(Service(path, options, kept(users)))

    def answer_at(at: socket | None = None) -> None:
        prepare(options.threads)
        service = Service(path, options, kept(users))
        if at is not None:
            service.tell_others = tell_all
        answer(service, token, None if at is None else [at])

    if workers == 1:
        answer_at()
    elif status := work_together(answer_at, listening(host, port, workers)):
        raise SystemExit(status)
