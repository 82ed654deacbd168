"""Where processes that answer together count what they do."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

FIGURES = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder of their figures."""


def count_together() -> None:
    """Make that folder, and remove it when this process ends. To be called before prometheus_client
    is imported, which reads the variable then."""
    folder = os.environ[FIGURES] = tempfile.mkdtemp(prefix="recsys-figures-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
