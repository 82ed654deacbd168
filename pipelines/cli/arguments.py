"""What the verbs take alike."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli import completing

Config = Annotated[Path, typer.Argument(help="A TOML file, or the folder of a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides such as trainer.epochs=3 data.path=/data/ml-1m.",
        autocompletion=completing.overrides,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on from the newest checkpoint: after a stop or kill, or for longer."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Train anew: the training that is there is removed.")
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="MLflow's alias moves to this bundle even if it beats no baseline."
    ),
]

Signed = Annotated[
    Path | None,
    typer.Option(help="A public Ed25519 key (PEM): refuse what its holder did not sign."),
]


def writable(path: Path | None) -> Path | None:
    """A file that a frame can be written to. Raises DataError, before there is any frame."""
    from feature_store.errors import DataError
    from feature_store.sources.text_file import DELIMITERS

    if path is not None and path.suffix not in (".parquet", *DELIMITERS):
        known = ", ".join((".parquet", *DELIMITERS))
        raise DataError(f"--out {path}: the name says what is written: let it end in {known}")
    return in_a_folder(path)


def in_a_folder(path: Path | None) -> Path | None:
    """A file that can be written. Raises DataError, before there is anything to write."""
    from feature_store.errors import DataError

    if path is None:
        return None
    if path.is_dir() or not path.parent.is_dir():
        wrong = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise DataError(f"--out {path}: {wrong}")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"--out {path}: {path.parent} cannot be written")
    return path


Out = Annotated[
    Path | None,
    typer.Option(
        callback=writable, help="Write a file instead of a table: *.parquet, *.csv or *.tsv."
    ),
]


def finite(value: float | None) -> float | None:
    """The number that an option holds; nan would pass any bound."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def load(config: Path, overrides: list[str] | None) -> Any:
    """The config of a TOML file or of a run's folder."""
    from recsys.config import load_config
    from recsys.runs.moved import config_of

    return config_of(config, overrides) if config.is_dir() else load_config(config, overrides)
