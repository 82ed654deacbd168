"""What a run is measured beside when its config names nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., tuple[Any, str, str]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("{user} {item}", ["ease", "popularity"]),
        ("{user} {item} {time}", ["ease", "popularity", "recent_popularity"]),
    ],
)
def test_recent_popularity_is_a_baseline_only_where_there_are_times(
    lines: str, expected: list[str], recsys: Ask, tmp_path: Path
) -> None:
    edges = [
        lines.format(user=user, item=(user + step) % 12, time=86_400 * step)
        for user in range(30)
        for step in range(6)
    ]
    (tmp_path / "edges.txt").write_text("\n".join(edges) + "\n")
    columns = '["user","item","time"]' if "time" in lines else '["user","item"]'
    (tmp_path / "small.toml").write_text(
        f'name = "small"\noutput = "{tmp_path}"\n'
        f'[data]\nsource = "edge_list"\npath = "{tmp_path}/edges.txt"\ncolumns = {columns}\n'
        '[split]\nprotocol = "random"\n[retriever]\nname = "ease"\n'
        "[evaluation]\nks = [1, 3]\nreplicates = 100\n[tracking]\nenabled = false\n"
    )
    for verb in ("ingest", "train", "evaluate"):
        status, _, errors = recsys(verb, tmp_path / "small.toml")
        assert status == 0, errors
    found = {p.stem for p in (tmp_path / "small" / "per_user").iterdir()}
    assert found == set(expected)
