"""Options of the engine of tables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from feature_store.options import Options

_GIB = 1 << 30
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, below the machine's memory
_LEAST_SPARK_GIB = 0.5  # below which Spark does not start
_SECRET = re.compile(r"secret|passw|token|access\.?key|account\.?key|credential", re.I)
_PUBLIC = re.compile(r"provider", re.I)  # names a class, as in s3a's aws.credentials.provider
_FROM_ENVIRONMENT = "env:"
_OURS = (
    "spark.sql.session.timeZone",
    "spark.sql.ansi.enabled",
    "spark.sql.timestampType",
    "spark.sql.parquet.inferTimestampNTZ.enabled",
)


class EngineConfig(Options):
    """Where tables of events are sorted, joined and counted."""

    kind: Literal["duckdb", "spark"] = Field(
        "duckdb",
        description="The embedded engine, or Apache Spark (pip install 'recsys[spark]', Java 17): "
        "the same results, for logs that no single machine holds.",
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="GiB that tables may take before they spill to the folder of temporary files "
        "(TMPDIR); by default a quarter of the machine's, from 1 to 4. Less is slower, not wrong. "
        "On Spark the heap of the driver and of each executor.",
    )
    threads: int | None = Field(None, ge=1, description="By default one a core.")
    master: str | None = Field(
        None, description="Spark's master, such as spark://host:7077; by default this machine."
    )
    settings: dict[str, str] = Field(
        {},
        description="Further properties of Spark. Of what is secret the value is env:NAME, which "
        "takes it from the environment: runs record what stands here.",
    )

    @model_validator(mode="after")
    def _check_spark(self) -> Self:
        if self.kind != "spark":
            for name in ("master", "settings"):
                if getattr(self, name):
                    raise ValueError(f"{name} is Spark's: set kind = 'spark', or leave it out")
            return self
        if self.memory_gb is not None and self.memory_gb < _LEAST_SPARK_GIB:
            raise ValueError(f"Spark needs memory_gb = {_LEAST_SPARK_GIB} at least")
        if self.master is not None and self.threads is not None:
            raise ValueError("threads are of this machine: leave them out where master is set")
        for name, value in self.settings.items():
            if name in _OURS:
                raise ValueError(f"{name} decides what comes out, and is set already: leave it out")
            secret = _SECRET.search(name) and not _PUBLIC.search(name)
            if secret and not value.startswith(_FROM_ENVIRONMENT):
                raise ValueError(
                    f"{name} is a secret, which runs would record: set it to "
                    f"{_FROM_ENVIRONMENT}NAME, and NAME in the environment"
                )
        return self

    @property
    def memory_gib(self) -> float:
        """The limit in GiB, whoever chose it."""
        return self.memory_gb or min(4.0, max(1.0, _machine_memory() / 4 / _GIB))


def setting(value: str) -> str | None:
    """The value of a setting: its own, or that of the environment; None where that has none."""
    if value.startswith(_FROM_ENVIRONMENT):
        return os.environ.get(value.removeprefix(_FROM_ENVIRONMENT))
    return value


def _machine_memory() -> int:
    """Bytes of memory that this process may have."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return machine
