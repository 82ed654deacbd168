"""The one JSON, whole after every step."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from benchmarks.gpu.step import FAILED, Outcome, Settings, Step
from feature_store.durable import write_text

LEFT_OUT = "left out"
_LEAST = 8.0  # seconds: with less left, a step is not begun
_PACKAGES = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "triton", "numpy", "pyarrow")
_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit"


class Doer(Protocol):
    """Does a step within so many seconds."""

    def do(self, step: Step, seconds: float) -> Outcome:
        """What it measured, or why it failed."""


def keep(
    path: Path, steps: Sequence[Step], doer: Doer, settings: Settings, seconds: float
) -> dict[str, Any]:
    """Do the steps in order until the time is over; `path` holds after each what there is."""
    began = time.monotonic()
    record: dict[str, Any] = {
        "benchmark": "gpu",
        "device": settings.device,
        "tiny": settings.tiny,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "steps": {},
    }
    for step in steps:
        left = seconds - (time.monotonic() - began)
        if left < _LEAST:
            record["steps"][step.name] = {LEFT_OUT: "no time"}
        else:
            started = time.monotonic()
            outcome = doer.do(step, min(step.seconds, left))
            taken = round(time.monotonic() - started, 1)
            record["steps"][step.name] = {"seconds": taken, **outcome}
            print(f"{taken:6.1f} s  {step.name}: {_told(outcome)}", flush=True)
        record["seconds"] = round(time.monotonic() - began, 1)
        write_text(json.dumps(record, indent=1) + "\n", path)
    return record


def _told(outcome: Outcome) -> str:
    return f"FAILED {outcome[FAILED]}" if FAILED in outcome else json.dumps(outcome)[:160]


def environment() -> dict[str, Any]:
    """The machine and the versions, asked without torch."""
    return {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processor": _processor(),
        "gpu": _asked("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"),
        "versions": {name: _version(name) for name in _PACKAGES if _version(name)},
        "revision": _asked("git", "rev-parse", "HEAD"),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _asked(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
