"""What the verbs print, and requests that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from pipelines.cli.answers import print_answers
from pipelines.installed import program


def read_requests(path: Path) -> Any:
    """A table of requests. Raises DataError when the file cannot be read."""
    from feature_store.parquet import read_parquet

    return read_parquet(path)


def print_finished(finished: Any) -> None:
    """The end of a run: five recommendations for one user, and where to look further."""
    from feature_store.errors import command
    from pipelines.printer import say
    from recsys.config import load_config
    from recsys.runs.verdict import VERDICT, sentence

    files = finished.files
    config = load_config(files.config)
    if config.ranker is None:
        recommender = finished.recommender
        user = recommender.users()[0]
        answers = recommender.recommend_table(recommender.requests_of([user]), k=5)
        title = f"five recommendations for user {user}"
        print_answers(answers.drop_columns(["origin", "fallback"]), "table", title)
        each = f"per user in {files.lists}"
        more = command(program(), "recommend", files.path, f"--user={user}", "-k", 10)
    else:
        each = f"per row in {files.predictions}"
        more = command(program(), "score", files.path, "--requests", "FILE")
    look = command(program(), "serve", files.path)
    example = command(program(), "run", "pipelines/configs/movielens_1m_sasrec.toml")
    if outcome := finished.results.get(VERDICT):
        say(f"verdict:      {sentence(config.model.name, outcome)}")
    typer.echo(
        f"bundle:       {files.bundle}\n"
        f"figures:      {files.metrics}, {each}\n"
        f"report:       {files.report}, its pictures in {files.plots}\n"
        f"ask more:     {more}\n"
        f"look into it: {look}, then open http://127.0.0.1:8000\n"
        f"MovieLens-1M: {example} data.path=FOLDER_OR_ZIP"
    )
