"""Where processes that answer together count what they do."""

from __future__ import annotations

import os

from feature_store.leftovers import Scratch

FIGURES = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder of their figures."""


def count_together() -> None:
    """Make that folder, and remove it when this process ends. To be called before prometheus_client
    is imported, which reads the variable then."""
    os.environ[FIGURES] = str(Scratch("figures").path)
