"""Steps after the training, and whether they are done: of this training, with these options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feature_store.durable import read_json, write_text
from feature_store.errors import DataError
from recsys.compatible.options import bundle_folder
from recsys.config import RunConfig
from recsys.runs.folder import RunFolder
from recsys.runs.log import open_log
from recsys.runs.weights import training_of
from recsys.serving.manifest import MANIFEST


@dataclass(frozen=True)
class Step:
    """A step after the training.

    Attributes:
        name: What it is called where it is written down.
        sections: The options that it reads, besides those of the training.
        made: What it leaves.
    """

    name: str
    sections: tuple[str, ...]
    made: Callable[[RunFolder], Path]

    def is_done(self, config: RunConfig) -> bool:
        """Whether what the step leaves is there, and was made from what is there now."""
        files = RunFolder(config.folder)
        made = self.made(files)
        whole = bool(read_json(made)) if made.suffix == ".json" else made.exists()
        return whole and _done(files).get(self.name) == self._origin(config)

    def require(self, config: RunConfig, verb: str) -> None:
        """Raises DataError, naming the verb that makes it, where the step is not done."""
        if not self.is_done(config):
            raise DataError(
                f"{config.folder} holds no {self.name} of this training with these options: run "
                f"`{verb} {config.folder}` first"
            )

    def mark_done(self, config: RunConfig) -> None:
        """Write down that it is done."""
        files = RunFolder(config.folder)
        done = _done(files) | {self.name: self._origin(config)}
        write_text(json.dumps(done, indent=2) + "\n", files.steps_done)

    def forget(self, files: RunFolder) -> None:
        """Write down that it is to be done again."""
        done = {name: origin for name, origin in _done(files).items() if name != self.name}
        write_text(json.dumps(done, indent=2) + "\n", files.steps_done)

    def _origin(self, config: RunConfig) -> str:
        """Sixteen hex digits over log, catalogue, options and the record of the training."""
        record, tree = RunFolder(config.folder).training_record, config.to_dict()
        log, catalogue = open_log(config)
        parts = {
            "log": log.fingerprint,
            "catalogue": catalogue.fingerprint,
            "record": record.read_text() if record.exists() else None,
            "training": config.training,
            **({} if config.cascade is None else {"parts": training_of(RunFolder(config.folder))}),
            **({} if config.compatible_with is None else {"upgrade": _upgrade(config)}),
            **{section: tree.get(section) for section in self.sections},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


FIGURES = Step("figures", ("baselines", "calibration", "evaluation"), lambda files: files.metrics)
BUNDLE = Step(
    "bundle",
    ("baselines", "calibration", "evaluation", "export"),
    lambda files: files.bundle,
)


def _upgrade(config: RunConfig) -> list[object]:
    """How the run reaches the bundle in service, and which bundle that is."""
    assert config.compatible_with is not None
    manifest = bundle_folder(config.compatible_with.bundle) / MANIFEST
    contents = manifest.read_bytes() if manifest.exists() else b""
    options = config.compatible_with.model_dump(mode="json")
    return [options, hashlib.sha256(contents).hexdigest()]


def _done(files: RunFolder) -> dict[str, str]:
    return read_json(files.steps_done)
