"""What the verbs print, and requests that they read."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import typer


def read_requests(path: Path) -> Any:
    """A frame of requests. Raises DataError when the file cannot be read."""
    import pandas as pd
    import pyarrow as pa

    from feature_store.errors import DataError

    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def write_frame(frame: Any, path: Path) -> None:
    """A frame as Parquet, CSV or TSV, whichever the file's name says; it appears whole."""
    import pyarrow as pa

    from feature_store.durable import write_parquet, write_text
    from feature_store.sources.text_file import DELIMITERS

    if path.suffix in DELIMITERS:
        write_text(frame.to_csv(index=False, sep=DELIMITERS[path.suffix]), path)
    else:
        write_parquet(pa.Table.from_pandas(frame, preserve_index=False), path)


def print_frame(frame: Any, title: str | None = None) -> None:
    """A frame as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*frame.columns, title=title)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)


def print_finished(finished: Any) -> None:
    """The end of a run: five recommendations for one user, and where to look further."""
    from recsys.config import load_config

    files = finished.files
    config = load_config(files.config)
    here = "" if shutil.which("recsys") else f"{Path(sys.executable).parent}/"
    here = here.removeprefix(f"{Path.cwd()}/")
    if config.ranker is None:
        user = finished.recommender.users()[0]
        answers = finished.recommend([user], k=5).drop(columns="fallback")
        print_frame(answers, title=f"five recommendations for user {user}")
        each, more = f"per user in {files.lists}", f"recommend {files.path} --user {user} -k 10"
    else:
        each, more = f"per row in {files.predictions}", f"score {files.path} --requests FILE"
    uri = config.tracking_uri
    typer.echo(
        f"bundle:       {files.bundle}\n"
        f"figures:      {files.metrics}, {each}\n"
        f"report:       {files.report}, its pictures in {files.plots}\n"
        f"ask more:     {here}recsys {more}\n"
        f"MLflow UI:    {here}mlflow ui --backend-store-uri {uri}\n"
        f"MovieLens-1M: {here}recsys run pipelines/configs/movielens_1m_sasrec.toml "
        "data.path=FOLDER_OR_ZIP"
    )
