"""What is imported before it is needed: `recsys --help` and a mistyped config answer at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchrec", "ibis", "duckdb", "mlflow", "matplotlib")
TABLES = ("pandas", "pyarrow")
HELP = """
import sys
from pipelines.cli import app
sys.argv = ["recsys", "--help"]
try:
    app()
except SystemExit as end:
    assert end.code == 0
"""


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import recsys", (*HEAVY, *TABLES)),
        (HELP, (*HEAVY, *TABLES)),
        ("import recsys.config", (*HEAVY, "pandas", "scipy")),
        ("from recsys.retrievers import RETRIEVERS; RETRIEVERS['sasrec']", (*HEAVY, *TABLES)),
    ],
    ids=["recsys", "help", "config", "registry"],
)
def test_nothing_heavy_is_loaded(program: str, absent: tuple[str, ...]) -> None:
    assert loaded(program, absent) == []


@pytest.mark.parametrize("verb", [["train"], ["embeddings", "inspect"]], ids=" ".join)
def test_a_config_that_is_none_is_told_of_before_anything_heavy_is_loaded(verb: list[str]) -> None:
    program = (
        "import sys\nfrom feature_store.errors import ConfigError\nfrom pipelines.cli import app\n"
        f"sys.argv = ['recsys', *{verb}, 'nowhere.toml']\n"
        "try:\n    app()\nexcept ConfigError as error:\n    assert 'cannot read' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    assert loaded(program, HEAVY) == []


def test_a_config_loads_the_models_that_it_names_alone() -> None:
    program = (
        "from recsys.config import parse_config; parse_config({'name': 'r', "
        "'data': {'source': 'synthetic'}, 'retriever': {'name': 'sasrec'}, 'baselines': ['ease']})"
    )
    rooms = [f"recsys.retrievers.{name}" for name in ("sasrec", "ease", "hstu", "graph", "als")]
    assert loaded(program, (*rooms, "recsys.rankers.dcn")) == rooms[:2]


def test_a_misspelled_retriever_is_refused_before_any_model_is_loaded() -> None:
    program = (
        "from recsys.config import parse_config\n"
        "from feature_store.errors import ConfigError\n"
        "try:\n"
        "    parse_config({'name': 'r', 'data': {'source': 'synthetic'}, "
        "'retriever': {'name': 'sasrek'}})\n"
        "except ConfigError as error:\n"
        "    assert 'did you mean sasrec?' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    assert loaded(program, HEAVY) == []


def loaded(program: str, modules: tuple[str, ...]) -> list[str]:
    """Which of `modules` a program loads."""
    told = f"{program}\nimport sys\nprint('\\n', *(m for m in {modules} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()
