"""What `import recsys` shows."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import recsys
from feature_store.errors import RecsysError

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_public_is_what_is_listed() -> None:
    assert dir(recsys) == ["RecsysError", "Run", "__version__", "evaluate", "open_run", "run"]
    assert all(hasattr(recsys, name) for name in dir(recsys))
    assert recsys.RecsysError is RecsysError
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = recsys.magic


def test_one_place_holds_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert recsys.__version__ == metadata.version("recsys")


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (None, "not evaluated"),
        (
            {"sasrec": {"metrics": {"NDCG@5": 0.1, "NDCG@10": 0.25}}, "ease": {"metrics": {}}},
            "leave_one_out, NDCG@10: sasrec 0.2500, ease nan",
        ),
    ],
)
def test_a_run_prints_itself(tmp_path: Path, results: dict[str, object] | None, told: str) -> None:
    (tmp_path / "config.toml").write_text("")
    if results is not None:
        found = {"protocol": "leave_one_out", "retrievers": results}
        (tmp_path / "metrics.json").write_text(json.dumps(found))
    run = recsys.Run(tmp_path)
    assert repr(run) == str(run) == f"Run({str(tmp_path)!r}, {told})"
