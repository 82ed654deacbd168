"""Where a run's settings, metrics and files are written down: MLflow, behind a few functions.

Tracking never stops a training: a failure is told once, in one line, and the run goes on. What
could not be written is kept, and written once the server is there again, or at the end; what is
lost even so is told.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

T = TypeVar("T")
Begin = Callable[[], tuple["MlflowClient", "RunInfo"]]
_Call = tuple[str, Callable[["MlflowClient", str], Any]]

DEFAULT_URI = "sqlite:///mlflow.db"
GIVE_UP_AFTER = 3
"""Failures in a row after which tracking rests: a dead server may cost seconds, not hours."""
REST = 60.0
"""Seconds after which a server that failed is asked again."""
_KEPT = 10_000  # calls, which are small: the metrics of an epoch, the path of a file

ENVIRONMENT = {
    # Left alone, MLflow waits minutes for a server that does not answer.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Programs print results on stdout; links there would mix with them.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Set before MLflow is imported, where the user has not set them."""

_PASSWORD = re.compile(r"//[^/@\s]+@")  # a URI of a database may hold one
_DESCRIPTION = "mlflow.note.content"  # MLflow's own tag for it
_PARAMS_PER_CALL = 100
_PARAM_LENGTH = 6000
_LONGEST = 200  # signs of names of what is lost
_VERSIONS_OF = ("recsys", "torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu")
_QUIET = {"mlflow": "CRITICAL", "alembic": "WARNING", "urllib3.connectionpool": "ERROR"}

_log = logging.getLogger(__name__)


class Tracker:
    """One MLflow run, made by `Tracker.start`. A tracker that is off ignores every call.

    One background thread writes everything; only metrics are not waited for. No method raises
    because of tracking: the first failure is logged as a warning. What failed is kept, in memory;
    after `GIVE_UP_AFTER` failures in a row nothing is tried for `REST` seconds, and then all that
    was kept is written, with the moments that it is of.

    Attributes:
        run_id: The id of the run, to be kept beside the checkpoints; None where none has begun.
        uri: Where it is written, without a password.
    """

    def __init__(
        self, uri: str = DEFAULT_URI, *, begin: Begin | None = None, warned: bool = False
    ) -> None:
        self.run_id: str | None = None
        self.uri = _PASSWORD.sub("//***@", uri)
        self._experiment_id: str | None = None
        self._uri = uri
        self._begin = begin
        self._client: MlflowClient | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self._warned = warned
        self._failures, self._rests_until = 0, 0.0
        self._kept: list[_Call] = []
        self._lost: list[str] = []

    @classmethod
    def start(
        cls,
        *,
        experiment: str,
        name: str,
        uri: str | None,
        enabled: bool = True,
        run_id: str | None = None,
    ) -> Tracker:
        """Begin a run, or continue one.

        Args:
            experiment: The name of the experiment; made where it does not exist.
            name: The name of a new run.
            uri: Where to write, such as `sqlite:///runs/mlflow.db` or `http://host:5000`; None is
                `DEFAULT_URI`. The environment variable MLFLOW_TRACKING_URI wins over it.
            enabled: False gives a tracker that is off.
            run_id: The run to continue; where it does not exist, a new one begins.
        """
        uri = _absolute(os.environ.get("MLFLOW_TRACKING_URI") or uri or DEFAULT_URI)
        if not enabled:
            return cls(uri)

        def begin() -> tuple[MlflowClient, RunInfo]:
            client = _connect(uri)
            return client, _run(client, uri, experiment, name, run_id)

        tracker = cls(uri, begin=begin)
        try:
            tracker._connected()
        except Exception as error:
            tracker._failed("start a run", error)
            tracker._rest()
        return tracker

    @property
    def page(self) -> str | None:
        """The run's page on a server, such as `/#/experiments/1/runs/0123...`; None where there is
        no run, or not all of it could be written."""
        if self.run_id is None or self._experiment_id is None or self._kept or self._lost:
            return None
        return f"/#/experiments/{self._experiment_id}/runs/{self.run_id}"

    def describe(self, text: str) -> None:
        """Write what the run is, in Markdown, where its page begins."""
        self._attempt("describe the run", lambda c, run: c.set_tag(run, _DESCRIPTION, text))

    def child(self, name: str) -> Tracker:
        """Begin a run below this one, such as a trial of a search; off where this tracker is off.

        It is finished like any other, and before this one.
        """
        begun = self._attempt(f"start {name}", lambda c, run: (c, _child(c, run, name)), keep=False)
        if begun is None:
            return Tracker(self._uri)
        child = Tracker(self._uri, begin=lambda: begun, warned=self._warned)
        child._connected()
        return child

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration as parameters, one per leaf, named like `trainer.epochs`.

        Tags say what else decides the result: the fingerprint of the configuration, every entry
        of it that is called a fingerprint, the git revision of the working folder, and the
        versions of the training stack. MLflow's parameters cannot change: where a continued run
        has a new value, it becomes a tag like `changed.trainer.epochs`.
        """
        self._attempt("log the configuration", lambda c, run: _log_config(c, run, config))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics, without waiting, under the names that `mlflow_name` gives them."""
        if self._off:
            return
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        entries = [Metric(mlflow_name(k), float(v), now_ms, step or 0) for k, v in metrics.items()]
        self._writer.submit(self._do, "log metrics", lambda c, run: c.log_batch(run, entries))

    def log_files(self, *paths: Path, folder: str | None = None) -> None:
        """Copy files and whole folders to the run's artifacts, beneath `folder` if given."""
        for path in paths:
            self._attempt(f"log {path}", partial(_log_path, path=path, folder=folder))

    def register_bundle(
        self, folder: Path, name: str, alias: str | None = "candidate"
    ) -> str | None:
        """Copy a bundle to the run's artifacts and register it as a new version of a model.

        Args:
            folder: The bundle.
            name: The registered model; made where it does not exist.
            alias: What others find this version by: `models:/NAME@ALIAS`; None leaves it where
                it is.

        Returns:
            The version; None where tracking is off or has failed.
        """
        return self._attempt(
            f"register {folder}", lambda c, run: _register(c, run, folder, name, alias)
        )

    def finish(self, status: str = "FINISHED") -> None:
        """Write what was kept, end the run, and switch tracking off; say what is lost.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        if not self._off:
            self._writer.submit(self._end, status).result()
        self._writer.shutdown()
        self._client = self._begin = None

    @property
    def _off(self) -> bool:
        return self._client is None and self._begin is None

    def _attempt(
        self, what: str, action: Callable[[MlflowClient, str], T], *, keep: bool = True
    ) -> T | None:
        """Do something with the client and the run's id, after all that is still waiting."""
        if self._off:
            return None
        return self._writer.submit(self._do, what, action, keep=keep).result()

    def _do(
        self, what: str, action: Callable[[MlflowClient, str], T], *, keep: bool = True
    ) -> T | None:
        """In the writer's thread: do it, or keep it for later."""
        if self._rests_until and time.monotonic() >= self._rests_until:
            self._rests_until = 0.0
            self._write_kept()
        if not self._rests_until:
            try:
                result = action(*self._connected())
            except Exception as error:
                self._failed(what, error)
            else:
                self._failures = 0
                return result
        if keep and len(self._kept) < _KEPT:
            self._kept.append((what, action))
        else:
            self._lost.append(what)
        return None

    def _connected(self) -> tuple[MlflowClient, str]:
        """The client and the run's id; the run is started now where it could not be before."""
        if self._client is None or self.run_id is None:
            assert self._begin is not None
            self._client, info = self._begin()
            self.run_id, self._experiment_id = info.run_id, info.experiment_id
        return self._client, self.run_id

    def _write_kept(self) -> None:
        """Write what was kept, until the server fails again."""
        waiting, self._kept = self._kept, []
        for what, action in waiting:
            if self._rests_until:
                self._kept.append((what, action))
            else:
                self._do(what, action)

    def _end(self, status: str) -> None:
        self._rests_until = 0.0
        self._failures = GIVE_UP_AFTER - 1 if self.run_id is None else 0
        self._write_kept()
        self._do("end the run", lambda c, run: c.set_terminated(run, status))
        if lost := [*self._lost, *(what for what, _ in self._kept)]:
            self._lost, self._kept = lost, []
            names = ", ".join(dict.fromkeys(lost))
            _log.warning(
                "tracking: %d of what was to be written is not at %s (%s); all figures are in the "
                "files of the run",
                len(lost),
                self.uri,
                names if len(names) <= _LONGEST else f"{names[:_LONGEST]} ...",
            )

    def _failed(self, what: str, error: Exception) -> None:
        self._warn(what, error)
        self._failures += 1
        if self._failures >= GIVE_UP_AFTER:
            self._rest()

    def _rest(self) -> None:
        self._rests_until = time.monotonic() + REST

    def _warn(self, what: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            reason = " ".join(str(error).split())[:200]
            line = f"tracking: cannot {what} at {self._uri}: {type(error).__name__}: {reason}"
            line = _PASSWORD.sub("//***@", line)
            _log.warning("%s; the run goes on, see MLFLOW_TRACKING_URI", line)


# Names


_FORBIDDEN = r"[^/\w.\- ]"
# An underscore that would read as the start of an escape is escaped itself.
# Nor may a name be another as a path: `a//b`, `/a`, `a/`, `./a`, `..`; nor begin with `..`.
_PATHS = r"^/|/(?=/|$)|^\.(?=\.)|(?:^|(?<=/))\.(?=\.?(?:/|$))"
_ESCAPE = re.compile(rf"{_FORBIDDEN}|{_PATHS}|_(?=(?:at|x[0-9a-f]+)(?:_|{_FORBIDDEN}|{_PATHS}))")
_UNESCAPE = re.compile(r"_at_|_x([0-9a-f]+)_")


def mlflow_name(name: str) -> str:
    """A name that MLflow takes: `test/HR@10` becomes `test/HR_at_10`, other signs `_xHEX_`."""
    return _ESCAPE.sub(lambda m: "_at_" if m[0] == "@" else f"_x{ord(m[0]):x}_", name)


def original_name(name: str) -> str:
    """The name that `mlflow_name` was given."""
    return _UNESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else "@", name)


# Speaking to MLflow


def _absolute(uri: str) -> str:
    """The same URI where an SQLite file is named from the root: folders may change later."""
    file = _sqlite_file(uri)
    return f"sqlite:///{file.resolve().as_posix()}" if file else uri


def _sqlite_file(uri: str) -> Path | None:
    path = uri.removeprefix("sqlite:///")
    return Path(path) if path != uri and path else None


def _connect(uri: str) -> MlflowClient:
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient  # slow: over a second
    from mlflow.store.db import utils as database

    # MLflow tries ten times to open a database, over 100 s, also where the file is broken.
    database.MAX_RETRY_COUNT = 1
    # Failures are told by the tracker, and the steps of making a database interest nobody.
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    if file := _sqlite_file(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI", uri))


def _run(client: MlflowClient, uri: str, experiment: str, name: str, run_id: str | None) -> RunInfo:
    """The continued or a new run."""
    from mlflow.exceptions import MlflowException

    if run_id is not None:
        try:
            client.update_run(run_id, status="RUNNING")
            return client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    file = _sqlite_file(uri)
    # Beside the database: MLflow's default is a folder in whatever the current folder is.
    artifacts = (file.parent / "mlartifacts").as_uri() if file else None
    _unless_it_exists(lambda: client.create_experiment(experiment, artifact_location=artifacts))
    existing = client.get_experiment_by_name(experiment)
    if existing is None:
        raise LookupError(f"experiment {experiment} was made but is not found")
    return client.create_run(existing.experiment_id, run_name=name).info


def _child(client: MlflowClient, parent: str, name: str) -> RunInfo:
    """A new run that MLflow shows below its parent."""
    experiment = client.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent}
    return client.create_run(experiment, tags=tags, run_name=name).info


def _unless_it_exists(make: Callable[[], object]) -> None:
    """Make something by name; several runs may do so at once."""
    from mlflow.exceptions import MlflowException

    try:
        make()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_config(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param, RunTag

    leaves = {mlflow_name(key): value[:_PARAM_LENGTH] for key, value in _flatten(config)}
    logged = client.get_run(run_id).data.params
    tags = {k: v for k, v in leaves.items() if k.endswith("fingerprint")}
    tags |= {f"changed.{k}": v for k, v in leaves.items() if logged.get(k, v) != v}
    tags |= {"config_fingerprint": fingerprint(config), "version.python": platform.python_version()}
    tags |= {f"version.{name}": v for name in _VERSIONS_OF if (v := _version(name))}
    if revision := git_revision(Path.cwd()):
        tags["git_revision"] = revision
    for chunk in _chunks([RunTag(k, v) for k, v in tags.items()]):
        client.log_batch(run_id, tags=chunk)
    for new in _chunks([Param(k, v) for k, v in leaves.items() if k not in logged]):
        client.log_batch(run_id, params=new)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, Mapping | list | tuple):
            yield f"{prefix}{key}", json.dumps(value, default=str)
        else:
            yield f"{prefix}{key}", str(value)


def _chunks(entries: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(entries), _PARAMS_PER_CALL):
        yield entries[start : start + _PARAMS_PER_CALL]


def fingerprint(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that differ where the configuration does, in whatever order it is."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out in a folder, `-dirty` where files differ; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _log_path(client: MlflowClient, run_id: str, path: Path, folder: str | None) -> None:
    if path.is_dir():
        name = path.absolute().name
        client.log_artifacts(run_id, str(path), f"{folder}/{name}" if folder else name)
    else:
        client.log_artifact(run_id, str(path), folder)


def _register(client: MlflowClient, run_id: str, folder: Path, name: str, alias: str | None) -> str:
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    _log_path(client, run_id, folder, None)
    _unless_it_exists(lambda: client.create_registered_model(name))
    source = f"{client.get_run(run_id).info.artifact_uri}/{folder.absolute().name}"
    version = str(client.create_model_version(name, source, run_id).version)
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)
    return version
