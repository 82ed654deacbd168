"""Do what there is time for, and keep it."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.plan import IMPORTS, steps
from benchmarks.gpu.record import keep
from benchmarks.gpu.step import FAILED, Settings
from benchmarks.gpu.workers import Apart, Here


def main(arguments: list[str] | None = None) -> int:
    """0 where no step failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of steps' names")
    parser.add_argument("--spare", type=int, default=3, help="processes that wait for a step")
    parser.add_argument("--list", action="store_true", help="print the steps' names")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny sizes on the CPU, in this process"
    )
    args = parser.parse_args(arguments)
    device = "cpu" if args.dry_run else "cuda"
    wanted = [
        step
        for step in steps(device)
        if any(fnmatch.fnmatch(step.name, pattern) for pattern in args.only)
    ]
    if args.list:
        print("\n".join(step.name for step in wanted))
        return 0
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: --dry-run needs none")
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(device, args.dry_run, Path(name))
        spare = min(args.spare, max(1, (os.cpu_count() or 1) // 4))
        doer = Here(settings) if args.dry_run else Apart(settings, IMPORTS, spare)
        try:
            record = keep(args.out, wanted, doer, settings, args.minutes * 60)
        finally:
            doer.close()
    failed = [name for name, outcome in record["steps"].items() if FAILED in outcome]
    print(f"{len(wanted) - len(failed)} of {len(wanted)} steps without a failure: {args.out}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
