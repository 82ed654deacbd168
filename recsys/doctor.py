"""What is installed here, whether it fits together, and the command that mends what does not.

Nothing risky is imported in this process: every import is tried in a process of its own, so that
an undefined symbol or a crash in native code is reported like any other fault. For the same
reason this module imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]

GIB = 1024**3
FBGEMM = ("fbgemm-gpu-cpu", "fbgemm-gpu")
LEAST_JAVA = 17  # of Spark 4


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: `fail` where training cannot run, `warn` where something less does not.
        found: What was found, in one line.
        fix: The command (or deed) that mends a fault; empty where nothing is wrong.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def check() -> list[Check]:
    """Look at everything, in the order in which faults should be mended. Never raises."""
    return [
        _python(),
        *_versions(),
        *_trials(),
        _spark(),
        _memory(),
        _disk(Path.cwd()),
    ]


def healthy(checks: Sequence[Check]) -> bool:
    """Whether training can run: no check failed."""
    return all(c.status != "fail" for c in checks)


def render(checks: Sequence[Check]) -> None:
    """Print the checks as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table("check", "", "found", "to mend it", highlight=False)
    for c in checks:
        # Text, because versions and errors may hold square brackets, which are markup to rich.
        table.add_row(c.name, Text(c.status, colours[c.status]), Text(c.found), Text(c.fix))
    whole = None if sys.stdout.isatty() else 1 << 16  # columns: nothing is cut where it is piped
    Console(emoji=False, width=whole).print(table)


def doctor() -> int:
    """Print all checks; 0 where training can run, else 1."""
    checks = check()
    render(checks)
    return 0 if healthy(checks) else 1


# What the package metadata says


def installed(distribution: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _has_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU, asked without torch."""
    return Path("/dev/nvidiactl").exists()


def _setup() -> str:
    return "make setup DEVICE=cuda" if _has_gpu() else "make setup"


def _minor(version: str) -> int | None:
    """The 13 of 2.13.0+cpu."""
    match = re.match(r"\d+\.(\d+)", version)
    return int(match[1]) if match else None


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= (3, 11):  # noqa: UP036  (a copy of the folder runs without pip's veto)
        return Check("python", "ok", version)
    return Check(
        "python", "fail", f"{version}, needs 3.11 or newer", f"{_setup()} PYTHON=python3.11"
    )


def _versions() -> list[Check]:
    torch, torchrec = installed("torch"), installed("torchrec")
    # A CPU installation has an empty `fbgemm-gpu X+cpu`, which is there for pip's sake alone.
    fbgemms = {
        name: version
        for name in FBGEMM
        if (version := installed(name)) and not (name == "fbgemm-gpu" and version.endswith("+cpu"))
    }
    checks = [_present("torch", torch), _present("torchrec", torchrec)]
    if len(fbgemms) > 1:
        both = " and ".join(f"{name} {version}" for name, version in fbgemms.items())
        clash = f"{both}: they overwrite each other's files"
        return [*checks, Check("fbgemm", "fail", clash, f"rm -rf .venv && {_setup()}")]
    name, fbgemm = next(iter(fbgemms.items()), ("fbgemm", None))
    checks.append(_present(name, fbgemm))
    if torch and torchrec and fbgemm:
        checks.append(_match(torch, torchrec, fbgemm))
    return checks


def _present(distribution: str, version: str | None) -> Check:
    if version:
        return Check(distribution, "ok", version)
    return Check(distribution, "fail", "not installed", _setup())


def _match(torch: str, torchrec: str, fbgemm: str) -> Check:
    """fbgemm is compiled against one torch: 1.6 with 2.11, 1.7 with 2.12, 1.8 with 2.13, 1.9 with
    2.14."""
    torch_minor, fbgemm_minor = _minor(torch), _minor(fbgemm)
    versions = f"torch {torch}, torchrec {torchrec}, fbgemm {fbgemm}"
    if torch_minor is None or fbgemm_minor is None:
        return Check("versions match", "warn", f"{versions}: unknown pattern", _setup())
    if torch_minor != fbgemm_minor + 5:
        needed = f"torch 2.{fbgemm_minor + 5}"
    elif _minor(torchrec) != fbgemm_minor:
        needed = f"torchrec 1.{fbgemm_minor}"
    else:
        return Check("versions match", "ok", versions)
    return Check("versions match", "fail", f"{versions}; fbgemm {fbgemm} needs {needed}", _setup())


# What happens when it is used


def _import_torch() -> str:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU"
    return f"{torch.__version__}, {built}, {torch.get_num_threads()} threads"


def _fbgemm_operators() -> str:
    import fbgemm_gpu  # noqa: F401
    import torch

    lengths = torch.ops.fbgemm.asynchronous_complete_cumsum(torch.tensor([2, 0, 1]))
    if lengths.tolist() != [0, 2, 2, 3]:
        raise RuntimeError(f"asynchronous_complete_cumsum([2, 0, 1]) gave {lengths.tolist()}")
    return "loaded, and one gave the right answer"


def _torchrec_lookup() -> str:
    import torch
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

    config = EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=8, feature_names=["item"])
    tables = EmbeddingBagCollection(tables=[config])
    bags = KeyedJaggedTensor.from_lengths_sync(
        keys=["item"], values=torch.tensor([1, 2, 3]), lengths=torch.tensor([2, 1])
    )
    rows = tables.embedding_bags["t"].weight
    torch.testing.assert_close(tables(bags)["item"], torch.stack([rows[1] + rows[2], rows[3]]))
    return "two bags of ids summed to the right vectors"


def _process_group() -> str:
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        dist.barrier()
        dist.destroy_process_group()
    nccl = "nccl available" if dist.is_nccl_available() else "no nccl (needed for GPUs only)"
    return f"gloo made a group of one, {nccl}"


def _cuda_devices() -> str:
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda:
            raise RuntimeError(f"torch is built for CUDA {torch.version.cuda}, but sees no GPU")
        if _has_gpu():
            raise RuntimeError("this machine has a GPU, but torch is built for CPU")
        return f"no GPU, {_cpus()} CPUs"
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = ", ".join(f"{p.name} ({p.total_memory / GIB:.0f} GiB)" for p in properties)
    return f"{gpus}, {_cpus()} CPUs"


def _engine() -> str:
    import pyarrow as pa

    from feature_store.engine import Engine

    with Engine() as engine:
        rows = engine.collect(engine.table(pa.table({"one": [1]}))).to_pylist()
        if rows != [{"one": 1}]:
            raise RuntimeError(f"a table of one row came back as {rows}")
        return engine.description


def _faiss() -> str:
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    if index.search(np.array([[0, 1]], dtype=np.float32), 1)[1].item() != 1:
        raise RuntimeError("the nearest of two vectors is the wrong one")
    return str(faiss.__version__)


def _mlflow() -> str:
    import mlflow

    return str(mlflow.__version__)


@dataclass(frozen=True)
class Trial:
    """Something to try in another process: returns what it found, raises where it does not work.

    Attributes:
        attempt: What to try.
        status: How bad it is where that fails.
    """

    attempt: Callable[[], str]
    status: Status


TRIALS = {
    "import torch": Trial(_import_torch, "fail"),
    "fbgemm operators": Trial(_fbgemm_operators, "fail"),
    "torchrec lookup": Trial(_torchrec_lookup, "fail"),
    "process groups": Trial(_process_group, "fail"),
    "devices": Trial(_cuda_devices, "warn"),
    "engine": Trial(_engine, "fail"),
    "faiss": Trial(_faiss, "warn"),
    "mlflow": Trial(_mlflow, "warn"),
}


def _trials(timeout_s: float = 120) -> list[Check]:
    """Try everything. A trial that takes its process down does not take the later ones along."""
    checks: list[Check] = []
    while len(checks) < len(TRIALS):
        untried = list(TRIALS)[len(checks) :]
        # -P: this file's folder must not come before the installed packages.
        command = [sys.executable, "-P", __file__, *untried]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
            reports, end = run.stdout, _ending(run.returncode, run.stderr)
        except subprocess.TimeoutExpired as error:
            reports, end = _text(error.stdout), f"no answer after {timeout_s:.0f} s"
        except OSError as error:
            reports, end = "", f"cannot start {sys.executable}: {error}"
        before = len(checks)
        checks += [_reported(json.loads(r)) for r in reports.splitlines() if r.startswith("{")]
        if len(checks) - before < len(untried):
            name = list(TRIALS)[len(checks)]
            checks.append(Check(name, TRIALS[name].status, end, _setup()))
    return checks


def _reported(report: dict[str, str]) -> Check:
    name = report["name"]
    if "error" in report:
        return Check(name, TRIALS[name].status, report["error"], _setup())
    return Check(name, "ok", report["found"])


def _ending(code: int, stderr: str) -> str:
    """Why a process ended before its work did."""
    how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
    last = stderr.strip().splitlines()[-1:]
    return ": ".join([how, *last])


def _text(output: str | bytes | None) -> str:
    return output.decode() if isinstance(output, bytes) else output or ""


def _try(names: Sequence[str]) -> None:
    """In the other process: one JSON line per trial, at once, so that a crash loses only itself."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever the libraries print goes to stderr
    for name in names:
        try:
            report = {"name": name, "found": TRIALS[name].attempt()}
        except BaseException as error:
            message = str(error).strip().splitlines() or [""]
            report = {"name": name, "error": f"{type(error).__name__}: {message[0]}"}
        os.write(out, json.dumps(report).encode() + b"\n")


def _spark() -> Check:
    """What tables of events on Spark need; the embedded engine does without."""
    pyspark = installed("pyspark")
    if pyspark is None:
        return Check("spark", "ok", "no pyspark, which engine.kind = 'spark' alone needs")
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    fix = "apt-get install openjdk-17-jre-headless"
    if java is None:
        return Check("spark", "warn", f"pyspark {pyspark}, and no Java", fix)
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("spark", "warn", f"pyspark {pyspark}, and {java} does not start: {error}", fix)
    version = re.search(r'version "(\d+)[^"]*"', told)
    both = f"pyspark {pyspark}, {version[0] if version else 'an unknown version'} of Java"
    if version is None or int(version[1]) < LEAST_JAVA:
        return Check("spark", "warn", f"{both}, and Spark needs {LEAST_JAVA}", fix)
    return Check("spark", "ok", both)


# What the machine has left


def _cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> Check:
    free = _free_memory()
    if free is None:
        return Check("free memory", "ok", "unknown on this system")
    size = f"{free / GIB:.1f} GiB"
    if free >= 4 * GIB:
        return Check("free memory", "ok", size)
    return Check("free memory", "warn", size, "close other programs, or lower reader.batch_size")


def _free_memory() -> int | None:
    """Bytes that can be had without swapping, within the limit of the container if there is one."""
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo)
    free = int(match[1]) * 1024 if match else None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no container, or "max": no limit
        return free
    return limit - used if free is None else min(free, limit - used)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    size = f"{free / GIB:.1f} GiB in {folder}"
    if free >= 5 * GIB:
        return Check("free disk", "ok", size)
    status: Status = "warn" if free >= GIB / 2 else "fail"
    return Check("free disk", status, size, "delete old folders under runs/")


if __name__ == "__main__":
    _try(sys.argv[1:])
