"""A run that follows a bundle -> a bundle over an index on its way."""

from __future__ import annotations

from pathlib import Path

from feature_store.errors import ConfigError, DataError
from feature_store.progress import stage
from recsys.config import RunConfig
from recsys.export.bundle import write_bundle
from recsys.runs.compatibility import calibration_between
from recsys.runs.exports import underway_of
from recsys.runs.folder import RunFolder
from recsys.runs.log import open_log
from recsys.runs.steps import BUNDLE
from recsys.serving.bundle import Bundle
from recsys.serving.generator import REEMBEDDED, Generator


def write_underway(config: RunConfig, share: float, folder: Path) -> Bundle:
    """Write and verify a bundle of which a `share` of the items is re-embedded, as the run's own
    bundle has them; who is, stays so with a larger share.

    Raises ConfigError where the run follows no bundle, DataError where it has no bundle of this
    training, or the folder is there.
    """
    if config.compatible_with is None:
        raise ConfigError(
            f"{config.folder} follows no bundle: its config has no section [compatible_with]"
        )
    if folder.exists():
        raise DataError(f"--out {folder} is there already: choose another folder, or remove it")
    BUNDLE.require(config, "recsys export")
    bundle = Bundle.open(RunFolder(config.folder).bundle)
    served, own = Generator.open(bundle), Generator.open(bundle, REEMBEDDED)
    parts = underway_of(config, share, calibration_between(served, own))
    with stage("write and verify the bundle"):
        return write_bundle(folder, parts, open_log(config)[1])
