"""The one Spark application of a process: quiet, in UTC, without files in the working folder."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from feature_store.engine.config import EngineConfig, setting
from feature_store.errors import ConfigError, DataError
from feature_store.leftovers import Scratch
from feature_store.storage.secrets import scrubbed

_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    # what overflows, or cannot be cast, is an error, as on the embedded engine, and never a null
    "spark.sql.ansi.enabled": "true",
    # moments of logs have no time zone
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 16),
}
_AT_LAUNCH = ("spark.driver.", "spark.jars", "spark.submit.")  # known before the JVM runs
_QUIET = """rootLogger.level = error
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c: %m%n
"""
_LONGEST = 400  # characters of a cause


@dataclass
class _Application:
    config: EngineConfig
    session: Any


_running: _Application | None = None


def new_session(config: EngineConfig) -> Any:
    """A session with views of its own. An application of other settings is ended, but the JVM, with
    its heap and class path, is that of the process's first; an application that somebody else has
    started here is used as it is.

    Raises ConfigError where Spark, Java or a setting is missing, DataError where it does not start.
    """
    global _running
    try:
        from pyspark import SparkContext
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigError(
            "engine.kind = 'spark' needs pyspark, which is not installed: "
            "pip install 'recsys[spark]', or leave it out"
        ) from None
    theirs = SparkContext._active_spark_context
    if _running is not None and theirs is not _running.session.sparkContext:
        _running = None  # somebody stopped it
    if _running is not None and _running.config != config:
        _running.session.stop()
        _running = theirs = None
    if _running is not None:
        session = _running.session.newSession()
    elif theirs is not None:
        session = SparkSession(theirs).newSession()
    else:
        _running = _start(config)
        session = _running.session.newSession()
    for name, value in _SESSION.items():
        session.conf.set(name, value)
    return session


def java() -> str | None:
    """The Java that Spark would run on."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")


def cause(error: Exception) -> str | None:
    """What lies behind an error of Spark's, in one line without secrets; None for other errors."""
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark.errors import PySparkException

    if isinstance(error, Py4JJavaError):
        thrown = error.java_exception
        with suppress(Exception):  # the JVM may be gone
            while thrown.getCause() is not None:
                thrown = thrown.getCause()
        text = str(thrown)
    elif isinstance(error, PySparkException):
        text = str(error)
        if "Traceback (most recent call last)" in text:  # of an executor: what it ended with
            lines = text.partition("Traceback (most recent call last)")[2].splitlines()
            text = next((x for x in lines if x and not x.startswith((":", " ", "\t"))), text)
    elif isinstance(error, (Py4JError, ConnectionError, EOFError)):
        text = f"the JVM has ended ({error})"
    else:
        return None
    text = scrubbed(text.split("\n\tat ")[0].split("JVM stacktrace")[0])
    return text[:_LONGEST]


def _start(config: EngineConfig) -> _Application:
    if java() is None:
        raise ConfigError(
            "engine.kind = 'spark' needs Java 17, and no java is found in JAVA_HOME or PATH: "
            "install it (such as openjdk-17-jre-headless), or leave engine.kind out"
        )
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    folder = _folder()
    values = _values(config, folder)
    early = SparkConf(loadDefaults=False).setAll(
        [(name, value) for name, value in values.items() if name.startswith(_AT_LAUNCH)]
    )
    log, gateway = folder / "spark.log", SparkContext._gateway
    try:
        if gateway is None:
            with open(log, "ab") as told:
                streams = {"stdout": told, "stderr": told, "cwd": str(folder)}
                gateway = launch_gateway(early, streams)
        # secrets go there through a socket, since anybody may read a command line
        conf = SparkConf(loadDefaults=False).setAll(list(values.items()))
        context = SparkContext(conf=conf, gateway=gateway)
        if values["spark.master"].startswith("local"):
            context.pythonExec = sys.executable
        return _Application(config, SparkSession(context))
    except (PySparkException, Py4JError, OSError) as error:
        lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()]
        text = lines[-1] if gateway is None and lines else cause(error) or str(error)
        raise DataError(
            f"Spark does not start ({scrubbed(text)[:_LONGEST]}): it needs Java 17, "
            "engine.memory_gb of memory, and a master that answers"
        ) from None


@cache
def _folder() -> Path:
    """For all that Spark writes here as long as this process lives."""
    return Scratch("spark").path


def _values(config: EngineConfig, scratch: Path) -> dict[str, str]:
    """All properties of the application."""
    threads = config.threads or os.cpu_count() or 1
    local = f"local[{config.threads or '*'}]"
    master = config.master or local
    heap = f"{round(config.memory_gib * 1024)}m"
    quiet = scratch / "log4j2.properties"
    quiet.write_text(_QUIET)
    options = f"-Dlog4j2.configurationFile=file:{quiet} -Djava.io.tmpdir={scratch}"
    values = {
        "spark.app.name": "recsys",
        "spark.master": master,
        "spark.driver.memory": heap,
        "spark.executor.memory": heap,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        root = str(Path(__file__).resolve().parents[2])
        values |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.executorEnv.PYTHONPATH": os.pathsep.join(
                [root, *(os.path.abspath(path) for path in sys.path if path)]
            ),
            # of 200, as by default, most would be empty
            "spark.sql.shuffle.partitions": str(2 * threads),
        }
    for name, value in config.settings.items():
        known = setting(value)
        if known is None:
            raise ConfigError(
                f"engine.settings.{name!r} is {value!r}, and the environment has no such variable"
            )
        values[name] = known
    own = values.get("spark.driver.extraJavaOptions", "")
    values["spark.driver.extraJavaOptions"] = f"{options} {own}".strip()
    return values
