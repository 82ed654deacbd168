"""How lists explore, and which bundle answers whom, as words of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from feature_store.errors import ConfigError
from pipelines.cli.bundles import bundle_in

if TYPE_CHECKING:
    from recsys.policy.exploration import Exploration


def exploration(words: list[str] | None) -> Exploration | None:
    """Such as `share=0.1`, `keep=2`; None where there are no words.

    Raises ConfigError naming the word that says nothing.
    """
    from recsys.policy.exploration import Exploration

    if not words:
        return None
    options = dict(word.partition("=")[::2] for word in words)
    try:
        return Exploration.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = ", ".join(Exploration.model_fields)
        raise ConfigError(
            f"--explore {name}: {first['msg'].removeprefix('Value error, ')}; there are: {known}"
        ) from None


def arm_in(words: str) -> tuple[str, tuple[float, Path]]:
    """The name, share and bundle of NAME=SHARE=BUNDLE. Raises ConfigError for anything else."""
    name, _, rest = words.partition("=")
    share, _, folder = rest.partition("=")
    try:
        if name and name != "main" and folder:
            return name, (float(share), bundle_in(Path(folder)))
    except ValueError:
        pass
    raise ConfigError(
        f"--arm {words}: write NAME=SHARE=BUNDLE, such as new=0.1=runs/new; the arm of the bundle "
        "that is served is called main, and has the rest"
    )
