"""Runs are written down where they can be found again, and a failure to do so stops nothing."""

from __future__ import annotations

import math
import posixpath
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from recsys import tracking
from recsys.config import parse_config
from recsys.distributed import Group
from recsys.runs.folder import RunFolder
from recsys.runs.work import Work
from recsys.tracking import Tracker, fingerprint, git_revision, mlflow_name, original_name

DEAD_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own that must stay empty, and no server in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A fresh MLflow database: making one takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture
def uri(tmp_path: Path, empty_database: bytes) -> str:
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    return f"sqlite:///{tmp_path}/mlflow.db"


def start(uri: str, **changes: object) -> Tracker:
    arguments = {"experiment": "tests", "name": "a run", "uri": uri} | changes
    return Tracker.start(**arguments)  # type: ignore[arg-type]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


def test_metrics_are_read_back_per_step(uri: str) -> None:
    tracker = start(uri)
    for step in range(5):
        tracker.log_metrics({"test/HR@10": step / 10, "loss": math.nan}, step)
    tracker.finish()
    client = MlflowClient(uri)
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a run")
    history = client.get_metric_history(tracker.run_id, mlflow_name("test/HR@10"))
    assert [(m.step, m.value) for m in history] == [(s, s / 10) for s in range(5)]
    assert math.isnan(run.data.metrics["loss"])


def test_the_configuration_becomes_parameters_and_tags(uri: str) -> None:
    config = {
        "trainer": {"epochs": 3, "amp": False, "betas": [0.9, 0.98]},
        "split": {"fingerprint": "abc", "empty": {}},
        "long": "x" * 10_000,
        "many": {f"key{i}": i for i in range(150)},
    }
    tracker = start(uri)
    tracker.log_config(config)
    tracker.finish("FAILED")
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.params["trainer.epochs"] == "3"
    assert run.data.params["trainer.betas"] == "[0.9, 0.98]"
    assert run.data.params["split.empty"] == "{}"
    assert len(run.data.params) == 156
    assert run.data.tags["split.fingerprint"] == "abc"
    assert run.data.tags["config_fingerprint"] == fingerprint(config)
    assert run.data.tags["version.torch"].startswith("2.")
    assert "git_revision" not in run.data.tags


def test_a_continued_run_is_the_same_run(uri: str) -> None:
    first = start(uri)
    first.log_config({"epochs": 3, "lr": 0.1})
    first.log_metrics({"loss": 2.0}, 0)
    first.finish("KILLED")
    second = start(uri, run_id=first.run_id)
    assert MlflowClient(uri).get_run(second.run_id).info.status == "RUNNING"
    second.log_config({"epochs": 5, "lr": 0.1, "new": 1})
    second.log_metrics({"loss": 1.0}, 1)
    second.finish()
    assert second.run_id == first.run_id
    run = MlflowClient(uri).get_run(first.run_id)
    assert run.data.params == {"epochs": "3", "lr": "0.1", "new": "1"}
    assert run.data.tags["changed.epochs"] == "5"
    assert "changed.lr" not in run.data.tags
    assert [m.step for m in MlflowClient(uri).get_metric_history(run.info.run_id, "loss")] == [0, 1]


def test_an_unknown_run_gives_way_to_a_new_one(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = start(uri, run_id="0" * 32)
    assert tracker.run_id not in (None, "0" * 32)
    assert warnings_of(caplog) == []


def test_a_run_has_a_page_of_its_own_that_begins_with_what_it_is(uri: str) -> None:
    tracker = start(uri)
    tracker.describe("**sasrec** on movielens")
    tracker.finish()
    info = MlflowClient(uri).get_run(tracker.run_id)
    assert info.data.tags["mlflow.note.content"] == "**sasrec** on movielens"
    assert tracker.page == f"/#/experiments/{info.info.experiment_id}/runs/{tracker.run_id}"
    assert tracker.uri == uri and start(uri, run_id=tracker.run_id).page == tracker.page


def test_what_was_not_tracked_whole_has_no_page(uri: str, tmp_path: Path) -> None:
    assert start(uri, enabled=False).page is None
    assert start(DEAD_SERVER).page is None
    tracker = start(uri)
    tracker.log_files(tmp_path / "missing")
    assert tracker.page is None
    assert Tracker("postgresql://me:secret@host/db").uri == "postgresql://***@host/db"


def test_files_go_beside_the_database(uri: str, tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "report" / "plots").mkdir(parents=True)
    (tmp_path / "report" / "plots" / "a.svg").write_text("<svg/>")
    (tmp_path / "metrics.json").write_text("{}")
    tracker = start(uri)
    tracker.log_files(tmp_path / "metrics.json", tmp_path / "report", folder="evaluation")
    tracker.finish()
    found = Path(download_artifacts(run_id=tracker.run_id, tracking_uri=uri))
    files = {str(p.relative_to(found)) for p in found.rglob("*") if p.is_file()}
    assert files == {"evaluation/metrics.json", "evaluation/report/plots/a.svg"}
    assert (tmp_path / "mlartifacts").is_dir()
    assert list(elsewhere.iterdir()) == []


def test_a_bundle_is_registered_and_its_files_come_back(uri: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "index").mkdir(parents=True)
    (bundle / "manifest.json").write_text('{"model": "sasrec"}')
    (bundle / "index" / "vectors").write_bytes(b"\0\1")
    tracker = start(uri)
    assert tracker.register_bundle(bundle, "candidates") == "1"
    assert tracker.register_bundle(bundle, "candidates", alias="champion") == "2"
    assert tracker.register_bundle(bundle, "candidates", alias=None) == "3"  # no alias moves
    tracker.finish()
    client = MlflowClient(uri)
    assert client.get_model_version_by_alias("candidates", "candidate").version == 1
    version = client.get_model_version_by_alias("candidates", "champion")
    assert version.version == 2 and version.run_id == tracker.run_id
    copy = Path(download_artifacts(version.source, tracking_uri=uri, dst_path=str(tmp_path / "d")))
    assert (copy / "manifest.json").read_text() == '{"model": "sasrec"}'
    assert (copy / "index" / "vectors").read_bytes() == b"\0\1"


def test_the_environment_decides_where_to_write(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = start(f"sqlite:///{tmp_path}/other.db")
    tracker.finish()
    assert MlflowClient(uri).get_run(tracker.run_id).info.status == "FINISHED"
    assert not (tmp_path / "other.db").exists()


def test_a_new_database_is_made_quietly(tmp_path: Path, elsewhere: Path) -> None:
    code = (
        "from recsys.tracking import Tracker; import os, sys; assert 'mlflow' not in sys.modules\n"
        "t = Tracker.start(experiment='e', name='n', uri='sqlite:///runs/new/mlflow.db')\n"
        "os.chdir('..'); t.log_metrics({'loss': 1}); t.finish(); assert t.run_id"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [p.name for p in elsewhere.iterdir()] == ["runs"]
    assert (elsewhere / "runs" / "new" / "mlflow.db").is_file()


def use_everything(tracker: Tracker, file: Path) -> None:
    tracker.log_config({"epochs": 3})
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_files(file)
    assert tracker.register_bundle(file.parent, "candidates") is None
    tracker.finish()
    tracker.log_metrics({"loss": 1.0}, 2)
    tracker.finish()


def test_a_tracker_that_is_off_does_nothing(tmp_path: Path, elsewhere: Path) -> None:
    tracker = start(f"sqlite:///{tmp_path}/mlflow.db", enabled=False)
    use_everything(tracker, tmp_path / "file")
    assert tracker.run_id is None
    assert not (tmp_path / "mlflow.db").exists()


def test_what_cannot_start_warns_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    uris = [
        DEAD_SERVER,
        f"sqlite:///{tmp_path}/file/mlflow.db",
        f"sqlite:///{tmp_path}/broken.db",
        "sqlite:////proc/mlflow.db",
        "nonsense://somewhere",
        "postgresql://me:secret@127.0.0.1:9/mlflow",
    ]
    for uri in uris:
        caplog.clear()
        before = time.monotonic()
        use_everything(start(uri), tmp_path / "file")
        assert time.monotonic() - before < 8, uri
        warning, lost = warnings_of(caplog)
        assert "\n" not in warning and "cannot start a run" in warning
        assert "(log the configuration, log metrics, log " in lost
        assert "all figures are in the files of the run" in lost
        assert "secret" not in warning + lost


def test_a_server_that_goes_away_is_given_up(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start(uri)
    tracker._client = MlflowClient(DEAD_SERVER)
    before = time.monotonic()
    for step in range(100):
        tracker.log_metrics({"loss": 1.0}, step)
    assert time.monotonic() - before < 1, "training must not wait"
    use_everything(tracker, tmp_path / "file")
    assert time.monotonic() - before < 15
    warning, lost = warnings_of(caplog)
    assert "cannot log metrics" in warning and "105 of what was to be written" in lost


@pytest.mark.parametrize("rest", [0.0, 60.0])
def test_what_a_server_missed_is_written_when_it_is_back(
    uri: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    """When it has rested, or else at the end; of the moments when it happened."""
    monkeypatch.setattr(tracking, "REST", rest)
    tracker, before = start(uri), time.time_ns() // 1_000_000
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "_client", MlflowClient(DEAD_SERVER))
        for step in range(4):
            tracker.log_metrics({"loss": float(step)}, step)
        tracker.describe("what it is")
        assert tracker.page is None
    after = time.time_ns() // 1_000_000
    tracker.log_metrics({"loss": 4.0}, 4)
    tracker.log_config({"epochs": 5})
    client = MlflowClient(uri)
    if rest:
        assert client.get_run(tracker.run_id).data.params == {}
        tracker.finish()
    else:
        assert tracker.page is not None
    run = client.get_run(tracker.run_id)
    assert run.data.params == {"epochs": "5"}
    assert run.data.tags["mlflow.note.content"] == "what it is"
    history = client.get_metric_history(tracker.run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(s, float(s)) for s in range(5)]
    assert all(before <= m.timestamp <= after for m in history if m.step < 4)
    (warning,) = warnings_of(caplog)
    assert "cannot log metrics" in warning


def test_a_run_begins_late_where_its_server_comes_late(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is continued as the same one by whoever goes on."""
    tree = {"name": "late", "output": str(tmp_path), "data": {"source": "synthetic"}}
    tree |= {"retriever": {"name": "popularity"}, "tracking": {"uri": uri}}
    config = parse_config(tree)
    files = RunFolder(config.folder)
    files.path.mkdir()
    work = Work(config, Group(0, 1, torch.device("cpu")), files)
    connect = tracking._connect

    def refuse(uri: str) -> MlflowClient:
        raise ConnectionError("refused")

    monkeypatch.setattr(tracking, "_connect", refuse)
    with work.tracked() as tracker:
        tracker.log_metrics({"loss": 1.0}, 3)
        assert tracker.run_id is None and not files.tracking_id.exists()
        monkeypatch.setattr(tracking, "_connect", connect)
    run = MlflowClient(uri).get_run(files.tracking_id.read_text())
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})


def test_a_full_disk_costs_one_warning(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the database says so, or the copy of a file beside it."""

    class FullDisk:
        def __getattr__(self, name: str) -> Any:
            def full(*_: object, **__: object) -> None:
                if "artifact" in name:
                    raise OSError(28, "No space left on device", str(tmp_path))
                raise sqlite3.OperationalError("database or disk is full")

            return full

    (tmp_path / "file").write_text("x")
    for first in (lambda tracker: tracker.describe("x"), lambda t: t.log_files(tmp_path / "file")):
        caplog.clear()
        tracker = start(uri)
        tracker._client = FullDisk()  # type: ignore[assignment]
        first(tracker)
        use_everything(tracker, tmp_path / "file")
        warning, lost = warnings_of(caplog)
        assert "6 of what was to be written" in lost
        assert "disk is full" in warning or "No space left on device" in warning
        assert "the run goes on" in warning and tracker.page is None


def test_a_database_that_is_read_only_costs_one_warning(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start(uri)
    file = f"file:{tmp_path}/mlflow.db"
    tracker._client = MlflowClient(f"sqlite:///{file}?mode=ro&uri=true")
    use_everything(tracker, tmp_path / "file")
    warning, lost = warnings_of(caplog)
    assert "readonly database" in warning and "the run goes on" in warning
    assert "\n" not in warning and "all figures are in the files" in lost


def test_a_slow_server_is_not_waited_for_but_at_the_end(uri: str) -> None:
    """It gets all metrics, in their order."""
    tracker, steps = start(uri), 6
    client = tracker._client

    class Slow:
        def __getattr__(self, name: str) -> Any:
            time.sleep(0.05)
            return getattr(client, name)

    tracker._client = Slow()  # type: ignore[assignment]
    before = time.monotonic()
    for step in range(steps):
        tracker.log_metrics({"loss": float(step)}, step)
    assert time.monotonic() - before < 0.05
    tracker.finish()
    assert time.monotonic() - before > 0.05 * steps
    history = MlflowClient(uri).get_metric_history(str(tracker.run_id), "loss")
    assert [(m.step, m.value) for m in history] == [(s, float(s)) for s in range(steps)]


def test_one_failure_does_not_switch_tracking_off(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start(uri)
    tracker.log_files(tmp_path / "missing")
    tracker.log_metrics({"loss": 1.0})
    tracker.finish()
    assert MlflowClient(uri).get_run(tracker.run_id).data.metrics == {"loss": 1.0}
    warning, lost = warnings_of(caplog)
    assert "missing" in warning and "1 of what was to be written" in lost


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test/HR@10", "test/HR_at_10"),
        ("p(click)", "p_x28_click_x29_"),
        ("loss_at", "loss_at"),
        ("test/../x", "test/_x2e_./x"),
        ("a//b/.", "a_x2f_/b/_x2e_"),
        ("/a/", "_x2f_a_x2f_"),
        ("..2", "_x2e_.2"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert mlflow_name(name) == expected
    assert original_name(expected) == name


@given(st.text(alphabet="@_atx28f:(é/. ") | st.text())
def test_names_come_back(name: str) -> None:
    written = mlflow_name(name)
    assert original_name(written) == name
    assert not written or posixpath.normpath(written) == written  # or MLflow refuses it
    assert not written.startswith(("/", "..")) and written != "."


def test_the_fingerprint_ignores_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_git_revision(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    clean = git_revision(tmp_path)
    assert clean is not None and len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert git_revision(tmp_path) == f"{clean}-dirty"
