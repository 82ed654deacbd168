"""A headless browser for tests: Chromium, asked for the page it ends up with."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@functools.cache
def chromium() -> str | None:
    """The path of a browser that starts, or None."""
    for found in filter(None, map(shutil.which, NAMES)):
        # Some distributions install a script that only says how to install the browser.
        if subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    return None


def open_page(path: Path, *options: str) -> str:
    """The document as HTML after it has loaded, with no network to reach."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                str(chromium()),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                *options,
                "--dump-dom",
                path.resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
