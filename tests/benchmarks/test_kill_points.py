"""Steps of a small job are killed anywhere and begun again: nothing differs, nothing is left.

A few tries of `python -m benchmarks.kill_points`, which takes all steps.
"""

from __future__ import annotations

import json
import subprocess
import sys


def test_what_is_killed_and_begun_again_leaves_what_an_undisturbed_run_does() -> None:
    """In a process of its own, which forks before it starts any thread."""
    words = ["--tries", "5", "--seed", "7", "--step", "ingest", "append"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_points", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["differ"], told["left_behind"], told["lost_keys"]) == (0, 0, 0), done.stderr
    assert told["tried"] == 5 and set(told["tries_of"]) == {"ingest", "append"}
