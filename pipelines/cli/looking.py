"""Verbs that look at runs, configs and machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from feature_store.errors import RecsysError
from pipelines.cli.arguments import Config, Overrides, finite, load


def plan(
    config: Config,
    overrides: Overrides = None,
    world_size: Annotated[int, typer.Option(min=1, help="Processes, one a GPU.")] = 1,
    hbm: Annotated[
        float | None,
        typer.Option(min=0.001, callback=finite, help="Memory of each in GB (10^9 bytes)."),
    ] = None,
    hosts: Annotated[
        int | None, typer.Option(min=1, help="Hosts they are spread over; by default 8 on each.")
    ] = None,
) -> None:
    """Which embedding table would lie where, and does it fit? No such cluster is needed.

    Prints each table's placement, bytes of weights and optimizer state on each process, and how
    evenly they lie; draws plots/plan.png in the run's folder. Status 1 where memory is missing.

    Example: recsys plan CONFIG embeddings.tables.user_id.rows=2000000000 --world-size 128 --hbm 80
    """
    loaded = load(config, overrides)
    from pipelines.ingest import ingest_log
    from pipelines.plan_table import plan_table
    from pipelines.printer import printer
    from recsys.report.plan_chart import draw_plan
    from recsys.runs.folder import RunFolder
    from recsys.runs.lock import locked
    from recsys.runs.plan import plan as job

    files = RunFolder(loaded.folder)
    with locked(files):  # examples are written where they are not there
        ingest_log(loaded)
        planned = job(loaded, world_size, hbm, hosts)
        printer().print(plan_table(planned))
        typer.echo(f"picture: {draw_plan(planned, files.plan_plot)}")
    if planned.problem:
        raise RecsysError(planned.problem)
    typer.echo("it fits")


def inspect_embeddings(config: Config, overrides: Overrides = None) -> None:
    """Collisions of ids, norms of rows and dead rows of a trained run's tables.

    Example: recsys embeddings inspect runs/movielens_1m_dcn
    """
    loaded = load(config, overrides)
    from pipelines.inspect_embeddings import inspect_embeddings as job
    from pipelines.inspect_embeddings import tables_of
    from pipelines.printer import printer
    from recsys.runs.folder import RunFolder
    from recsys.runs.lock import locked
    from recsys.runs.same_training import check_same_training

    check_same_training(loaded)
    with locked(RunFolder(loaded.folder)):
        printer().print(*tables_of(job(loaded)))


def doctor() -> None:
    """Can training run here? Versions, devices, back ends, memory, disk, and how to mend."""
    from recsys.doctor import doctor as examine

    raise typer.Exit(examine())


def show_config(
    config: Annotated[Path | None, typer.Argument(help="A TOML file, or a run's folder.")] = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="The JSON schema of configs, for editors.")
    ] = False,
) -> None:
    """The full resolved config as TOML, or the JSON schema of all configs.

    Every option stands there with what it means, also where it is not set.
    """
    from recsys.config import RunConfig
    from recsys.config.annotated import annotated

    if schema:
        typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))
    elif config is None:
        raise RecsysError("name a config, or ask for --schema")
    else:
        typer.echo(annotated(load(config, overrides)), nl=False)
