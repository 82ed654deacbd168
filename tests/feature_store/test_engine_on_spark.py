"""Spark as an engine: its options, its errors in one line, and what it leaves behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from benchmarks.engines import compare
from feature_store.engine import Engine, EngineConfig, spark_session
from feature_store.errors import ConfigError, DataError
from feature_store.sources import Synthetic


def test_no_secret_stands_in_a_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "spark.hadoop.fs.s3a.secret.key"
    with pytest.raises(ValidationError, match="is a secret, which runs would record"):
        EngineConfig(kind="spark", settings={key: "open"})
    provider = {"spark.hadoop.fs.s3a.aws.credentials.provider": "org.Provider"}
    config = EngineConfig(kind="spark", settings={key: "env:MY_SECRET", **provider})
    monkeypatch.delenv("MY_SECRET", raising=False)
    with pytest.raises(ConfigError, match="the environment has no such variable"):
        spark_session._values(config, tmp_path)
    monkeypatch.setenv("MY_SECRET", "hidden")
    values = spark_session._values(config, tmp_path)
    assert values[key] == "hidden" and "hidden" not in config.model_dump_json()
    assert not key.startswith(spark_session._AT_LAUNCH)  # of the command line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"master": "local[1]"}, "master is Spark's: set kind = 'spark'"),
        ({"settings": {"spark.x": "1"}}, "settings is Spark's"),
        ({"kind": "spark", "memory_gb": 0.1}, "needs memory_gb = 0.5 at least"),
        ({"kind": "spark", "master": "yarn", "threads": 2}, "leave them out where master is set"),
        (
            {"kind": "spark", "settings": {"spark.sql.session.timeZone": "CET"}},
            "decides what comes out",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, object], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        EngineConfig.model_validate(options)


def test_what_is_missing_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EngineConfig(kind="spark")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyspark", None)
        with pytest.raises(ConfigError, match=r"pip install 'recsys\[spark\]'"):
            Engine(config)
    pytest.importorskip("pyspark", reason="needs Spark: pip install 'recsys[spark]'")
    monkeypatch.setattr(spark_session, "java", lambda: None)
    with pytest.raises(ConfigError, match="needs Java 17, and no java is found"):
        spark_session._start(config)


def test_failures_are_one_line_and_of_the_work_its_own(spark: Engine, tmp_path: Path) -> None:
    rows = spark.table(pa.table({"a": ["1", "x"]}))
    with pytest.raises(DataError, match=r"^Spark failed: .*CAST_INVALID_INPUT.*'x'") as error:
        spark.collect(rows.mutate(b=rows["a"].cast("int64")))
    assert "\n" not in str(error.value) and "\tat" not in str(error.value)

    def refuses(batches: Iterator[pa.RecordBatch], name: str) -> None:
        raise DataError("column 'a' cannot be right")

    with pytest.raises(DataError, match=r"^column 'a' cannot be right$"):
        spark.parts(rows, [rows["a"]], refuses)

    def breaks(batches: Iterator[pa.RecordBatch], name: str) -> None:
        raise RuntimeError("what nobody thought of")

    with pytest.raises(DataError, match=r"^Spark failed: .*what nobody thought of"):
        spark.parts(rows, [rows["a"]], breaks)


def test_parts_are_made_by_executors_in_order_and_users_are_whole(spark: Engine) -> None:
    users = [n % 7 for n in range(70)]
    rows = spark.table(pa.table({"u": users, "n": list(range(70))}))

    def part(batches: Iterator[pa.RecordBatch], name: str) -> tuple[int, str, list[int], list[int]]:
        table = pa.Table.from_batches(batches)
        return os.getpid(), name, table["u"].to_pylist(), table["n"].to_pylist()

    parts = spark.parts(rows, [rows["u"], rows["n"]], part, together=True)
    assert len({name for _, name, _, _ in parts}) == len(parts)
    assert all(process != os.getpid() for process, *_ in parts)
    held = [set(users) for _, _, users, _ in parts]
    assert sum(map(len, held)) == 7  # none of them in two parts
    assert [u for _, _, users, _ in parts for u in users] == sorted(users)


def test_nothing_is_left_in_the_working_folder(spark: Engine) -> None:
    spark.collect(spark.table(pa.table({"a": [1]})))
    assert not {"metastore_db", "spark-warehouse", "derby.log", "artifacts"} & set(os.listdir())


def test_a_stream_has_its_order_and_its_columns_without_rows(spark: Engine) -> None:
    rows = spark.table(pa.table({"a": [3, 1, None, 2]}))
    batches = list(spark.stream(rows.order_by("a"), batch_rows=3))
    assert [n for batch in batches for n in batch["a"].to_pylist()] == [1, 2, 3, None]
    assert max(batch.num_rows for batch in batches) <= 3
    (empty,) = spark.stream(rows.filter(rows["a"] > 5))
    assert empty.num_rows == 0 and empty.schema.names == ["a"]


def test_the_benchmark_compares_every_row(spark: Engine) -> None:
    source = Synthetic(users=12, items=20, clusters=4, events=5, days=5)
    result = compare(source, EngineConfig(threads=1), spark.config)
    assert result["differ"] == [] and result["rows"] > 50
    assert set(result["seconds"]["spark"]) == {"start", "ingest", "examples"}
