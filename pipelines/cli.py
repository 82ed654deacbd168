"""`recsys ...`: each verb reads a config and calls one function of the pipelines."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from feature_store.errors import RecsysError

# Heavy imports happen inside the verbs, so that --help answers at once.
# What torch's native code warns of (a choice made on purpose, in sharding.py) tells users nothing.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a raw log to a verified candidate generator. Start with `recsys doctor`, then "
    "`recsys run pipelines/configs/synthetic_quickstart.toml`.",
)

embeddings = typer.Typer(no_args_is_help=True, help="Look into embedding tables.")
app.add_typer(embeddings, name="embeddings")

Config = Annotated[str, typer.Argument(help="A TOML file, or the folder of a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Overrides such as trainer.epochs=3 data.path=/data/ml-1m."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest checkpoint after a stop or kill.")
]


def _load(config: str, overrides: list[str] | None) -> Any:
    from recsys.config import load_config

    path = Path(config)
    return load_config(path / "config.toml" if path.is_dir() else path, overrides)


@app.command()
def run(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """The main job: ingest if needed, train, evaluate, export, verify.

    Example: recsys run pipelines/configs/movielens_1m_sasrec.toml data.path=/data/ml-1m

    Several processes: torchrun --nproc-per-node 2 -m pipelines.cli run CONFIG
    """
    from pipelines.run import run as job

    finished = job(_load(config, overrides), resume=resume)
    if os.environ.get("RANK", "0") == "0":
        _show(finished)


@app.command()
def ingest(
    config: Config,
    overrides: Overrides = None,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="Set bad rows aside in quarantine.parquet and go on."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a log made from other input.")
    ] = False,
) -> None:
    """Raw input to event log: validated, nothing dropped silently.

    Reads the config's section `data`; the log lies where `store` says.
    """
    from pipelines.ingest import describe, ingest_source

    loaded = _load(config, overrides)
    report = ingest_source(
        loaded.data,
        loaded.store_folder,
        quarantine=quarantine or loaded.quarantine,
        replace=replace,
    )
    typer.echo(f"{loaded.store_folder}: {describe(report)}")


@app.command()
def tune(
    config: Config,
    overrides: Overrides = None,
    retriever: Annotated[
        str | None,
        typer.Option(help="Tune this one over the config's data and split, from its defaults."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a search after a stop or kill.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Begin anew, over a search that is there.")
    ] = False,
) -> None:
    """Search for a retriever's best options, judged on validation alone.

    Searches as the section tune of the config says. Without tune.space in it
    the retriever's own search space is used. Options are given by low and high
    (log = true: even over orders of magnitude), or by choices:

    recsys tune CONFIG 'tune.space.retriever.dropout={low=0.0, high=0.5}'

    Writes tuning.json, tuned.toml (for `recsys run`) and plots/tuning.png into
    the run's folder; with --retriever into tuning/RETRIEVER below it, and prints
    the best as a baseline.

    More trials: recsys tune CONFIG tune.trials=60 --resume
    """
    from rich.console import Console

    from pipelines.tune import for_retriever
    from pipelines.tune import tune as job
    from pipelines.tuning_report import baseline_snippet, trials_table

    if retriever is None:
        loaded = _load(config, overrides)
        folder = loaded.folder
    else:
        loaded, folder = for_retriever(_load(config, None), retriever, overrides)
    found = job(loaded, folder, resume=resume, replace=replace)
    Console().print(trials_table(found))
    if retriever is not None and (snippet := baseline_snippet(found)):
        typer.echo(snippet)
    typer.echo(f"tuned: {folder / 'tuned.toml'}")


@app.command()
def train(config: Config, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train on an ingested log; leaves checkpoints in the run's folder."""
    from pipelines.run import tracked
    from pipelines.same_training import check_same_training
    from pipelines.train import train as job
    from recsys.distributed import join

    loaded = _load(config, overrides)
    if resume:
        check_same_training(loaded)
    with (
        join(loaded.trainer.device) as group,
        tracked(loaded, group, new=not resume) as tracker,
    ):
        job(loaded, group, tracker, resume=resume)
    typer.echo(f"trained: {loaded.folder}")


@app.command()
def evaluate(
    config: Config,
    overrides: Overrides = None,
    recommendations: Annotated[
        Path | None,
        typer.Option(help="Parquet of lists made elsewhere: user, item, and rank or score."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call those lists; by default the file's name.")
    ] = None,
) -> None:
    """Full-catalogue test figures of a trained run beside its baselines.

    With --recommendations no model is needed: lists that any other system made for the users of
    the log are measured under the config's protocol, and stand beside the run's own figures.

    Example: recsys evaluate CONFIG --recommendations theirs.parquet
    """
    from rich.console import Console

    from pipelines.evaluate import evaluate as job
    from pipelines.evaluate import metrics_table, report
    from pipelines.run import evaluate_lists, tracked
    from pipelines.same_training import check_same_training
    from recsys.distributed import join

    loaded = _load(config, overrides)
    if recommendations is not None:
        evaluate_lists(loaded, recommendations, name=name)
        return
    check_same_training(loaded)
    with join(loaded.trainer.device) as group, tracked(loaded, group) as tracker:
        results = job(loaded, group, tracker)
        if group.leads:
            report(loaded, tracker)
            Console().print(metrics_table(results))


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of evaluated runs; RUN:RETRIEVER for a baseline in one."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="NDCG@10, or NDCG at every cut-off; may be repeated."),
    ] = None,
    test: Annotated[
        Literal["randomisation", "bootstrap"], typer.Option(help="Paired test of the p-values.")
    ] = "randomisation",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write an HTML report of the runs side by side, too.")
    ] = None,
) -> None:
    """Runs side by side: differences from the first, intervals and paired p-values.

    Refuses runs of different protocols, and says what differs.

    Example: recsys compare runs/sasrec runs/two_tower runs/sasrec:popularity -m NDCG@10 -m Recall
    """
    from rich.console import Console

    from pipelines.compare import comparison_table
    from recsys.report.comparison import compare as job

    comparison = job(runs, metric or (), test=test)
    if out is not None:
        from recsys.report.report import write_comparison

        write_comparison(comparison, out)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2, allow_nan=False))
        return
    Console().print(comparison_table(comparison))
    for note in comparison.notes:
        typer.echo(f"note: {note}")
    if out is not None:
        typer.echo(f"report: {out}")


@app.command()
def export(config: Config, overrides: Overrides = None) -> None:
    """Write and verify the bundle of a trained and evaluated run."""
    from pipelines.export import export as job
    from pipelines.run import tracked
    from pipelines.same_training import check_same_training
    from recsys.distributed import join

    loaded = _load(config, overrides)
    check_same_training(loaded)
    with join("cpu") as group, tracked(loaded, group) as tracker:
        job(loaded, tracker)
    typer.echo(f"verified: {loaded.folder / 'bundle'}")


@app.command()
def recommend(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a bundle.")],
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A known user; may be repeated.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="Parquet with a `history` column of item ids, and user features."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items per user.")] = 10,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Items of the history may come again.")
    ] = False,
    diversity: Annotated[
        float,
        typer.Option(help="How much score two items of different categories are worth; 0: none."),
    ] = 0.0,
    category: Annotated[
        str | None, typer.Option(help="Column of the catalogue that diversity looks at.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write Parquet instead of a table.")] = None,
) -> None:
    """Ask a bundle; needs torch, but neither torchrec nor fbgemm.

    Example: recsys recommend runs/synthetic_quickstart --user 7 --user 42 -k 5
    """
    from recsys.serving.recommender import Recommender

    bundle = folder / "bundle" if (folder / "bundle").exists() else folder
    recommender = Recommender.open(bundle)
    asked = None if requests is None else _read_requests(requests)
    found = recommender.recommend(
        user or None,
        requests=asked,
        k=k,
        exclude_seen=not include_seen,
        diversity=diversity,
        category=category,
    )
    if out is not None:
        found.to_parquet(out)
    else:
        _print_frame(found)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="The folder of a ranker's run, or of its bundle.")],
    requests: Annotated[
        Path, typer.Option(help="Parquet with item ids, and whatever else the ranker reads.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write Parquet instead of a table.")] = None,
) -> None:
    """Ask a ranker's bundle how likely each row is; needs torch, but neither torchrec nor fbgemm.

    Example: recsys score runs/movielens_1m_dcn --requests pairs.parquet --out scored.parquet
    """
    from recsys.serving.scorer import Scorer

    bundle = folder / "bundle" if (folder / "bundle").exists() else folder
    found = Scorer.open(bundle).score(_read_requests(requests))
    if out is not None:
        found.to_parquet(out)
    else:
        _print_frame(found)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    world_size: Annotated[int, typer.Option(min=1, help="Processes, one a GPU.")] = 1,
    hbm: Annotated[
        float | None, typer.Option(min=0.001, help="Memory of each in GB (10^9 bytes).")
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
    from rich.console import Console

    from pipelines.plan import describe, draw
    from pipelines.plan import plan as job

    loaded = _load(config, overrides)
    planned = job(loaded, world_size, hbm, hosts)
    Console().print(describe(planned))
    typer.echo(f"picture: {draw(planned, loaded.folder / 'plots' / 'plan.png')}")
    if planned.problem:
        raise RecsysError(planned.problem)
    typer.echo("it fits")


@embeddings.command("inspect")
def inspect_embeddings(config: Config, overrides: Overrides = None) -> None:
    """Collisions of ids, norms of rows and dead rows of a trained run's tables.

    Example: recsys embeddings inspect runs/movielens_1m_dcn
    """
    from rich.console import Console

    from pipelines.inspect_embeddings import inspect_embeddings as job
    from pipelines.inspect_embeddings import tables_of
    from pipelines.same_training import check_same_training

    loaded = _load(config, overrides)
    check_same_training(loaded)
    Console().print(*tables_of(job(loaded)))


@app.command()
def doctor() -> None:
    """Can training run here? Versions, devices, back ends, memory, disk, and how to mend."""
    from recsys.doctor import doctor as examine

    raise typer.Exit(examine())


@app.command("config")
def show_config(
    config: Annotated[str | None, typer.Argument(help="A TOML file, or a run's folder.")] = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="The JSON schema of configs, for editors.")
    ] = False,
) -> None:
    """The full resolved config as TOML, or the JSON schema of all configs."""
    from recsys.config import RunConfig

    if schema:
        typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))
    elif config is None:
        raise RecsysError("name a config, or ask for --schema")
    else:
        typer.echo(_load(config, overrides).to_toml())


def _read_requests(path: Path) -> Any:
    import pandas as pd
    import pyarrow as pa

    from feature_store.errors import DataError

    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _print_frame(frame: Any, title: str | None = None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*frame.columns, title=title)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)


def _show(finished: Any) -> None:
    """The end of a run: five recommendations for one user, and where to look further."""
    from recsys.config import load_config

    folder = finished.folder
    config = load_config(folder / "config.toml")
    here = "" if shutil.which("recsys") else f"{Path(sys.executable).parent}/"
    here = here.removeprefix(f"{Path.cwd()}/")
    if config.ranker is None:
        user = finished.recommender.users()[0]
        _print_frame(finished.recommend([user], k=5), title=f"five recommendations for user {user}")
        each, more = f"per user in {folder / 'per_user'}", f"recommend {folder} --user {user} -k 10"
    else:
        each, more = f"per row in {folder / 'per_row'}", f"score {folder} --requests FILE"
    uri = config.tracking_uri
    typer.echo(
        f"bundle:       {finished.bundle}\n"
        f"figures:      {folder / 'metrics.json'}, {each}\n"
        f"report:       {folder / 'report.html'}, its pictures in {folder / 'plots'}\n"
        f"ask more:     {here}recsys {more}\n"
        f"MLflow UI:    {here}mlflow ui --backend-store-uri {uri}\n"
        f"MovieLens-1M: {here}recsys run pipelines/configs/movielens_1m_sasrec.toml "
        "data.path=FOLDER_OR_ZIP"
    )


def main() -> None:
    """Entry point: a user's error is one line on stderr and status 1, never a traceback."""
    try:
        app()
    except RecsysError as error:
        sys.exit(f"recsys: {error}")


if __name__ == "__main__":
    main()
