"""What the shell proposes where overrides are typed."""

from __future__ import annotations

from pathlib import Path

import typer


def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the config that is named on the line, each with its `=`, that begin alike."""
    from recsys.config.run_config import RunConfig
    from recsys.config.tree import Place

    keys = [".".join(path) for path in Place(RunConfig, _tree(context.params["config"])).paths()]
    sections = {key.rpartition(".")[0] for key in keys}
    return [f"{key}=" for key in keys if key.startswith(incomplete) and key not in sections]


def _tree(config: Path | None) -> dict[str, object]:
    """The config as far as it can be read: half a line is no place for errors."""
    from feature_store.trees import toml_tree

    try:
        path = Path(config or "")
        return toml_tree((path / "config.toml" if path.is_dir() else path).read_text())
    except (OSError, ValueError):
        return {}
