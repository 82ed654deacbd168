"""What the verbs take alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[str, typer.Argument(help="A TOML file, or the folder of a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Overrides such as trainer.epochs=3 data.path=/data/ml-1m."),
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


def load(config: str, overrides: list[str] | None) -> Any:
    """The config of a TOML file or of a run's folder."""
    from recsys.config import load_config
    from recsys.runs.folder import RunFolder

    path = Path(config)
    return load_config(RunFolder(path).config if path.is_dir() else path, overrides)
