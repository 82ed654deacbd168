"""Engines that several tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feature_store.engine import Engine, EngineConfig

# one application for all tests of a process, quick with little data
SPARK = EngineConfig(
    kind="spark",
    threads=1,
    memory_gb=1,
    settings={
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    },
)


@pytest.fixture(scope="session")
def spark() -> Iterator[Engine]:
    """An engine on Spark in this process; the test is skipped where it cannot run."""
    from feature_store.engine.spark_session import java

    pytest.importorskip("pyspark", reason="needs Spark: pip install 'recsys[spark]'")
    if java() is None:
        pytest.skip("needs Java 17 for Spark: apt-get install openjdk-17-jre-headless")
    with Engine(SPARK) as engine:
        yield engine


@pytest.fixture(scope="session")
def embedded() -> Iterator[Engine]:
    """An engine in this process."""
    with Engine(EngineConfig(threads=1)) as engine:
        yield engine
