"""What needs no sizes: what the GPU is, the tests that need one, and the main job."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.gpu.logs import marketplace
from benchmarks.gpu.step import Outcome, Settings
from benchmarks.timing import copy_bandwidth, product_rate
from pipelines.run import resolve, run
from recsys.doctor import check

ROOT = Path(__file__).resolve().parents[2]
SUITE = (Path("tests/recsys/training/test_devices.py"),)


def device(settings: Settings) -> Outcome:
    """The device, and its two rates: of copies, and of large products."""
    where = torch.device(settings.device)
    size, numbers = (128, 1 << 16) if settings.tiny else (8192, 1 << 28)
    outcome: Outcome = {
        "torch": torch.__version__,
        "copy_gb_per_s": round(copy_bandwidth(where, numbers) / 1e9, 1),
        "bf16_tflops": round(product_rate(where, size, dtype=torch.bfloat16) / 1e12, 2),
        "fp32_tflops": round(product_rate(where, size) / 1e12, 2),
    }
    if where.type == "cuda":
        facts = torch.cuda.get_device_properties(0)
        outcome |= {"name": facts.name, "memory_gb": round(facts.total_memory / 1e9, 1)}
        outcome |= {
            "cuda": torch.version.cuda,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return outcome


def doctor(settings: Settings) -> Outcome:
    """What `recsys doctor` says."""
    if settings.tiny:
        return {}  # it tries every import in a process of its own
    return {line.name: f"{line.status}: {line.found}" for line in check()}


def suite(settings: Settings) -> Outcome:
    """The tests marked `cuda`, each with how it ended."""
    report = settings.folder / "suite.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "cuda"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", *map(str, SUITE)]
    if settings.tiny:  # which imports no torch a second time: the suite itself runs what it can
        return {"files": [str(path) for path in SUITE if (ROOT / path).exists()]}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not report.exists():
        raise RuntimeError((done.stdout + done.stderr)[-1500:])
    return ended(report)


def ended(report: Path) -> Outcome:
    """How every test of a JUnit report ended, by its name, with what failed first."""
    tests: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag: child.get("message", "") for child in case}
        bad = next((kind for kind in ("failure", "error", "skipped") if kind in kinds), None)
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        tests[name] = "passed" if bad is None else f"{bad}: {kinds[bad][:300]}"
    count = sum(how == "passed" for how in tests.values())
    failed = sum(how.startswith(("failure", "error")) for how in tests.values())
    outcome: Outcome = {"passed": count, "of": len(tests), "tests": tests}
    return outcome if not failed else outcome | {"failed": f"{failed} tests"}


def quickstart(settings: Settings) -> Outcome:
    """The main job: its figures, and seconds of the whole."""
    overrides = [f"output={settings.folder}", f"trainer.device={settings.device}"]
    overrides.append("tracking.enabled=false")
    if settings.tiny:
        overrides += [f"data.{key}={value}" for key, value in marketplace(settings).items()]
        overrides += ["trainer.epochs=1", "retriever.negatives=16", "retriever.width=8"]
    config = resolve(ROOT / "pipelines" / "configs" / "synthetic_quickstart.toml", overrides)
    started = time.perf_counter()
    finished = run(config)
    taken = time.perf_counter() - started
    lines = finished.metrics.to_dict(orient="records")
    return {"run_s": round(taken, 1), "lines": lines}
