"""What becomes of a training on two processes of which one is killed?

The small job of `benchmarks.faults` is trained by `recsys together` on two processes, three times:
undisturbed; with rank 1 killed by SIGKILL in the middle, and begun again with `--resume`; and with
`--max-restarts 1 --resume` and rank 1 killed, where torchrun begins both again by itself.

`seconds_to_end` is from the kill until the command has ended, `named` whether it says which rank it
was in one line; `resumed_equal` and `restarted_equal` say whether the weights are, bit for bit,
those of the undisturbed training.

`python -m benchmarks.rank_dies`
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.faults.steps import CONFIG, RUN, begin

_LONG = ("trainer.epochs=60", "trainer.patience=100", "reader.lanes=2")
_KILLED_AT = 12  # steps, at the earliest
_PATIENCE = 300.0  # seconds of a command


def start(folder: Path, *words: str, restarts: int = 0) -> subprocess.Popen[str]:
    """The training on two processes."""
    together = ["-m", "pipelines.cli", "together", "--nproc-per-node", "2"]
    together += ["--max-restarts", str(restarts)] if restarts else []
    return subprocess.Popen(
        [sys.executable, *together, "train", CONFIG, *_LONG, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def rank_of(process: int) -> str | None:
    """The rank of a process that torchrun has started."""
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    ranks = [v.partition(b"=")[2].decode() for v in variables if v.startswith(b"RANK=")]
    return ranks[0] if ranks else None


def kill_rank(parent: int, rank: str) -> None:
    """Kill the child of a process that has a rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (child,) = (int(child) for child in children if rank_of(int(child)) == rank)
    os.kill(child, signal.SIGKILL)


def killed(running: subprocess.Popen[str], folder: Path) -> float:
    """Kill rank 1 once some steps are saved; returns the moment."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and running.poll() is None:
        steps = (folder / RUN / "checkpoints").glob("step-*")
        if any(int(step.name.removeprefix("step-")) >= _KILLED_AT for step in steps):
            kill_rank(running.pid, "1")
            return time.monotonic()
        time.sleep(0.005)
    raise SystemExit(f"the training ended before it could be killed: {running.communicate()[1]}")


def weights(folder: Path) -> dict[str, str]:
    """The checksums of the newest checkpoint's files."""
    newest = max((folder / RUN / "checkpoints").glob("step-*"))
    files = json.loads((newest / "state.json").read_text())["files"]
    return {newest.name: "", **{n: f["sha256"] for n, f in files.items() if n != ".metadata"}}


def made(root: Path, name: str) -> Path:
    """A folder with the job's config, and its log ingested."""
    folder = root / name
    folder.mkdir()
    begin(folder)
    command = [sys.executable, "-m", "pipelines.cli", "ingest", CONFIG]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder


def ended(running: subprocess.Popen[str]) -> str:
    """What it said on stderr; SystemExit where it failed."""
    _, told = running.communicate(timeout=_PATIENCE)
    if running.returncode:
        raise SystemExit(told)
    return told


def measure(root: Path) -> dict[str, Any]:
    """All three trainings."""
    whole = made(root, "undisturbed")
    ended(start(whole))
    expected = weights(whole)
    folder = made(root, "killed")
    running = start(folder)
    at = killed(running, folder)
    _, told = running.communicate(timeout=_PATIENCE)
    seconds = time.monotonic() - at
    lines = [line for line in told.splitlines() if "rank 1" in line]
    print("\n".join(lines), file=sys.stderr)
    ended(start(folder, "--resume"))
    restarted = made(root, "restarted")
    running = start(restarted, "--resume", restarts=1)
    killed(running, restarted)
    print(ended(running)[-600:], file=sys.stderr)
    return {
        "seconds_to_end": round(seconds, 2),
        "named": bool(lines) and "Traceback" not in told,
        "resumed_equal": weights(folder) == expected,
        "restarted_equal": weights(restarted) == expected,
    }


def main() -> None:
    """Measure and print one JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"benchmark": "rank_dies", **measure(Path(folder))}))


if __name__ == "__main__":
    main()
