"""The doctor finds what is broken, survives it, and names the command that mends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys import doctor
from recsys.doctor import GIB, Check

MATCHING = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}


def versions(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> dict[str, Check]:
    """The version checks of an installation that differs from a matching one."""
    found = MATCHING | {name.replace("_", "-"): version for name, version in changes.items()}
    monkeypatch.setattr(doctor, "installed", found.get)
    return {c.name: c for c in doctor._versions()}


def trials(monkeypatch: pytest.MonkeyPatch, *names: str, timeout_s: float = 120) -> list[Check]:
    """The outcome of some of the trials."""
    monkeypatch.setattr(doctor, "TRIALS", {n: doctor.TRIALS[n] for n in names})
    return doctor._trials(timeout_s)


def fake_package(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, code: str) -> None:
    """Put a package in the way of the real one, in other processes only."""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_this_installation_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor() == 0
    assert "torchrec lookup" in capsys.readouterr().out


def test_importing_the_doctor_does_not_import_torch() -> None:
    code = "import recsys.doctor, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("torch", "fbgemm"),
    [("2.11.0", "1.6.0"), ("2.12.1", "1.7.0"), ("2.13.0+cpu", "1.8.0"), ("2.14.1", "1.9.0")],
)
def test_matching_versions(monkeypatch: pytest.MonkeyPatch, torch: str, fbgemm: str) -> None:
    checks = versions(monkeypatch, torch=torch, torchrec=fbgemm, fbgemm_gpu_cpu=fbgemm)
    assert checks["versions match"].status == "ok"


@pytest.mark.parametrize(
    ("changes", "way_out"),
    [
        ({"torch": "2.12.0"}, "needs torch 2.13"),
        ({"fbgemm_gpu_cpu": "1.9.0"}, "needs torch 2.14"),
        ({"torch": "2.15.0", "torchrec": "1.9.2", "fbgemm_gpu_cpu": "1.9.0"}, "needs torch 2.14"),
        ({"torchrec": "1.7.0"}, "needs torchrec 1.8"),
    ],
)
def test_a_mismatch_fails(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], way_out: str
) -> None:
    found = versions(monkeypatch, **changes)["versions match"]
    assert found.status == "fail"
    assert way_out in found.found
    assert found.fix.startswith("make setup")


def test_the_alias_of_the_cpu_build_is_no_second_fbgemm(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = versions(monkeypatch, fbgemm_gpu="1.8.0+cpu")
    assert checks["fbgemm-gpu-cpu"].status == "ok"


def test_two_builds_of_fbgemm_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions(monkeypatch, fbgemm_gpu="1.8.0")["fbgemm"]
    assert found.status == "fail"
    assert "overwrite" in found.found


def test_the_cuda_build_alone_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = versions(monkeypatch, fbgemm_gpu="1.8.0+cu130", fbgemm_gpu_cpu=None)
    assert {c.status for c in checks.values()} == {"ok"}


@pytest.mark.parametrize("missing", ["torch", "torchrec", "fbgemm_gpu_cpu"])
def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    checks = versions(monkeypatch, **{missing: None})
    failed = [c for c in checks.values() if c.status == "fail"]
    assert [c.found for c in failed] == ["not installed"]
    assert failed[0].fix == doctor._setup()


def test_the_command_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_has_gpu", lambda: True)
    assert versions(monkeypatch, torch=None)["torch"].fix == "make setup DEVICE=cuda"


def test_a_broken_import_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_package(monkeypatch, tmp_path, "torch", "raise OSError('undefined symbol: _ZN3c10\\nx')")
    (found,) = trials(monkeypatch, "import torch")
    assert found == Check(
        "import torch", "fail", "OSError: undefined symbol: _ZN3c10", doctor._setup()
    )


def test_a_crash_is_reported_and_the_rest_is_still_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_package(monkeypatch, tmp_path, "faiss", "import os; os.abort()")
    before, crashed, after = trials(monkeypatch, "engine", "faiss", "mlflow")
    assert (before.status, crashed.status, after.status) == ("ok", "warn", "ok")
    assert crashed.found == "killed by signal 6"
    assert crashed.fix.startswith("make setup")


def test_an_import_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_package(monkeypatch, tmp_path, "mlflow", "import time; time.sleep(60)")
    (found,) = trials(monkeypatch, "mlflow", timeout_s=1)
    assert (found.status, found.found) == ("warn", "no answer after 1 s")


def test_what_a_library_prints_is_no_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_package(monkeypatch, tmp_path, "mlflow", "print('{hello'); __version__ = '[3]'")
    assert trials(monkeypatch, "mlflow") == [Check("mlflow", "ok", "[3]")]


@pytest.mark.parametrize(("free_gib", "status"), [(8, "ok"), (2, "warn"), (0.1, "fail")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free_gib: float, status: str) -> None:
    usage = type("Usage", (), {"free": int(free_gib * GIB)})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    found = doctor._disk(Path("here"))
    assert found.status == status
    assert bool(found.fix) == (status != "ok")


@pytest.mark.parametrize(("free_gib", "status"), [(8, "ok"), (2, "warn"), (None, "ok")])
def test_memory(monkeypatch: pytest.MonkeyPatch, free_gib: float | None, status: str) -> None:
    free = None if free_gib is None else int(free_gib * GIB)
    monkeypatch.setattr(doctor, "_free_memory", lambda: free)
    assert doctor._memory().status == status


def test_only_a_failure_is_unhealthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warned = [Check("a", "ok", "1"), Check("b", "warn", "[x]", "mend")]
    monkeypatch.setattr(doctor, "check", lambda: warned)
    assert doctor.doctor() == 0
    monkeypatch.setattr(doctor, "check", lambda: [*warned, Check("c", "fail", "2", "make setup")])
    assert doctor.doctor() == 1
    out = capsys.readouterr().out
    assert "[x]" in out and "make setup" in out


def test_spark_needs_java_of_a_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None)
    assert (doctor._spark().status, "no pyspark" in doctor._spark().found) == ("ok", True)
    monkeypatch.setattr(doctor, "installed", lambda name: "4.0.5")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert (doctor._spark().status, "no Java" in doctor._spark().found) == ("warn", True)
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    for version, status in (("11.0.2", "warn"), ("17.0.15", "ok")):
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        java.chmod(0o755)
        assert doctor._spark().status == status and version in doctor._spark().found
