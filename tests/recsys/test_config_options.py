"""Every option says what it is: in `recsys config`, in the schema for editors, and in the code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from recsys.config import RunConfig, load_config, parse_config
from recsys.config.annotated import annotated

CONFIGS = sorted(Path(__file__).parents[2].glob("pipelines/configs/*.toml"))


def options() -> dict[str, dict[str, Any]]:
    """Every option of every table in the schema, by TABLE.option; keys that choose a table's kind
    are described by the kinds."""
    schema = RunConfig.model_json_schema()
    tables = schema["$defs"] | {"RunConfig": schema}
    return {
        f"{name}.{key}": entry
        for name, table in tables.items()
        for key, entry in table.get("properties", {}).items()
        if "const" not in entry
    }


def test_every_option_has_a_description() -> None:
    schema = RunConfig.model_json_schema()
    described = {name for name, table in schema["$defs"].items() if table.get("description")}
    every = options()
    assert len(every) > 300
    bare = {name: entry for name, entry in every.items() if not entry.get("description")}
    # a section without a description of its own has that of its table
    tables = {name: entry.get("$ref", "").split("/")[-1] for name, entry in bare.items()}
    assert {name for name, table in tables.items() if table not in described} == set()


def test_the_price_is_that_of_one_piece() -> None:
    assert "one piece" in options()["Columns.price"]["description"]
    config = parse_config(
        {
            "name": "x",
            "data": {
                "source": "parquet",
                "path": "log",
                "columns": {"user": "u", "item": "i", "time": "t", "price": "p"},
            },
            "retriever": {"name": "ease"},
        }
    )
    assert "of the line: money is price times quantity.\nprice = " in annotated(config)
    assert "below 0 of a return.\n# quantity =\n" in annotated(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_prints_all_its_options_and_loads_again(path: Path) -> None:
    overrides = [
        'embeddings.tables={"user id"={rows=5}, "a.b"={}}',
        "trainer.since=2024-01-01T12:00:00Z",
        'tracking.uri="sqlite:///C:\\\\my \\"runs\\""',
    ]
    config = load_config(path, overrides)
    text = annotated(config)
    assert parse_config(tomllib.loads(text)) == config
    unset = [line for line in text.splitlines() if line.startswith("# ") and line.endswith(" =")]
    assert "# steps =" in unset and "# memory_gb =" in unset
    assert ("# ranker =" in unset) is (config.ranker is None)
