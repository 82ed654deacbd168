"""The config of a run's folder, wherever the folder lies now."""

from __future__ import annotations

import json
from pathlib import Path

from feature_store.errors import ConfigError, command
from recsys.config import RunConfig, load_config
from recsys.runs.folder import RunFolder


def config_of(folder: Path, overrides: list[str] | None = None) -> RunConfig:
    """The config of a run that lies in `folder`, with overrides.

    A folder that was moved here, or comes from somebody else, is the run's nonetheless: what its
    config says of `output` and `name` is not followed, so that nothing is written anywhere else.

    Raises ConfigError where the config of such a folder names further places that are written, and
    no override says that they are meant.
    """
    path, asked = RunFolder(folder).config, overrides or []
    own = load_config(path)
    if own.folder.resolve() == folder.resolve():
        return load_config(path, asked)
    resolved = folder.resolve()
    here = [f"output={json.dumps(str(resolved.parent))}", f"name={json.dumps(resolved.name)}"]
    config = load_config(path, [*here, *asked])
    said = {override.partition("=")[0].strip() for override in asked}
    tracked = own.tracking.uri if config.tracking.enabled else None
    for key, place in {"store": own.store, "tracking.uri": tracked}.items():
        if place is not None and key not in said:
            raise ConfigError(
                f"{folder} was made elsewhere, and its config has {key} = {place}, which is "
                f"written: if that is meant, add {command(f'{key}={place}')}"
            )
    return config
