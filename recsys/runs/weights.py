"""Which training the weights of a run's folder come from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from recsys.runs.folder import RunFolder

TRAINING = "training"
"""What `metrics.json` calls it."""


def training_of(files: RunFolder) -> str | None:
    """Sixteen hex digits over the record of the finished training: over the losses and figures of
    its epochs, not the seconds they took, so that the same training has the same.

    None where none is finished, or the model is fitted where it is used.
    """
    if not files.training_record.exists():
        return None
    record = _timeless(json.loads(files.training_record.read_text()))
    text = json.dumps(record, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if key != "seconds"}
    return [_timeless(value) for value in tree] if isinstance(tree, list) else tree
