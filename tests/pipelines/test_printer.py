"""What people's data says is shown as it is: nothing of it is markup, and nothing is cut."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from rich.text import Text

from feature_store.ingest import Count, IngestReport
from pipelines.cli.answers import csv_lines, print_answers
from pipelines.compare import comparison_table
from pipelines.escaping import shown
from pipelines.ingest import describe
from pipelines.metrics_table import metrics_table
from pipelines.printer import printer, say
from recsys.report.comparison import Comparison

UUID = "0b6f9f1e-6f43-4f0e-9a53-2b1e9d3a7c55-" * 3
NASTY = ["sku[a]2", "Heat [vhs]", "Book 3 [/r] import", ":smile: [bold]", 'a,b"c', UUID]
ROWS = pa.table(
    {
        "user": pa.array([2**53 + 1, None, 3, 4, 5, 6]),
        "item": NASTY,
        "score": pa.array([0.25] * 6, pa.float32()),
        "history": [[1, None]] + [[]] * 5,
    }
)


@pytest.mark.parametrize("width", [None, 60])
def test_a_table_shows_every_sign(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    """On a narrow terminal in several lines, elsewhere in one."""
    if width:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
    print_answers(ROWS, "table", title="runs [v2]")
    out = capsys.readouterr().out
    for text in (*NASTY, "runs [v2]", str(2**53 + 1)):
        if not width:
            assert text in out
        assert text.replace(" ", "")[:6] in out.replace(" ", "")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert "…" not in out and max(map(len, lines)) <= (width or 1 << 16)
    assert "".join(lines).count("7c55-") == 3  # to the end of the last id


STEERING = "\x1b]0;mine\x07\x1b[2J\x9b31m\r\u202e"


@pytest.mark.parametrize("terminal", [True, False])
def test_data_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """Titles, cells, names of columns and lines; colours are ours alone."""
    if terminal:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("TERM", "xterm")
    print_answers(pa.table({STEERING: [STEERING]}), "table", title=STEERING)
    printer().print(STEERING)
    printer().print(Text(STEERING, style="red"))
    say(f"{STEERING}\n{STEERING}")
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert out.count(r"\x1b]0;mine") == out.count(r"\u202e") == 7
    assert {sign for sign in out if not sign.isprintable()} == {"\n"}


def test_elsewhere_answers_are_csv_that_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    print_answers(ROWS)
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head == ROWS.column_names
    assert [row[1] for row in rows] == NASTY
    assert [row[0] for row in rows] == [str(2**53 + 1), "", "3", "4", "5", "6"]
    assert rows[0][2:] == ["0.25", "[1, null]"]
    tabbed = "".join(csv_lines(ROWS, "\t"))
    assert pd.read_csv(io.StringIO(tabbed), sep="\t")["item"].tolist() == NASTY


def test_no_title_becomes_a_formula_and_no_id_another() -> None:
    titles = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "1 = 1"]
    rows = pa.table({"item": titles, "title": titles, "score": [-0.5] * len(titles)})
    _, *read = csv.reader(io.StringIO("".join(csv_lines(rows)), newline=""))
    assert [row[0] for row in read] == titles
    assert [row[1] for row in read] == [*(f"'{title}" for title in titles[:6]), "1 = 1"]
    assert {row[2] for row in read} == {"-0.5"}
    head = next(csv_lines(pa.table({"=cmd|x": [1]})))
    assert head == "'=cmd|x\n"


def test_json_lines_keep_types(capsys: pytest.CaptureFixture[str]) -> None:
    print_answers(ROWS, "jsonl")
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records == ROWS.to_pylist()


def test_what_would_move_the_cursor_is_escaped() -> None:
    assert shown("a\nb\x1b[31m\tü 日本") == "a\\nb\\x1b[31m\\tü 日本"


def printed(capsys: pytest.CaptureFixture[str], renderable: Any) -> str:
    printer().print(renderable)
    return capsys.readouterr().out


def test_names_of_runs_and_models_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    figures: dict[str, Any] = {"Recall@10": 0.1, "NDCG@10": 0.1, "HR@10": 0.1}
    summary = {"metrics": figures, "ci95": {name: [0, 1] for name in figures}, "slices": {}}
    results = {
        **{"name": "runs [v2]", "protocol": "p", "protocol_fingerprint": "f", "candidates": 3},
        "retrievers": {name: summary for name in NASTY},
    }
    out = printed(capsys, metrics_table(results))
    assert all(name in out for name in (*NASTY, "runs [v2]"))
    numbers = {name: [0.1] * 2 for name in ("value", "low", "high")}
    differences = {f"difference{end}": [0.1] * 2 for end in ("", "_low", "_high")}
    frame = pd.DataFrame(
        {"run": NASTY[:2], "metric": ["[x]@10"] * 2, **numbers, **differences, "p": 0.5}
    ).assign(p_holm=0.5)
    first = type("Contender", (), {"label": NASTY[2]})()
    comparison = Comparison.__new__(Comparison)
    values = {
        **{"runs": [first], "frame": frame, "protocol": "p", "fingerprint": "f"},
        **{"candidates": 3, "users": 2, "test": "randomisation"},
    }
    for name, value in values.items():
        object.__setattr__(comparison, name, value)
    out = printed(capsys, comparison_table(comparison))
    assert all(text in out for text in (*NASTY[:3], "[x]@10", "[0.1000, 0.1000]"))


def test_an_ingest_without_a_catalogue_still_counts_users_and_items() -> None:
    nothing, events = Count(), Count(read=3, stored=3)
    report = IngestReport.model_construct(
        events=events, items=nothing, users=nothing, reasons={}, seconds=1.25,
        distinct_items=2, distinct_users=3,
    )  # fmt: skip
    assert describe(report) == "3 events of 3 users and 2 items; in 1.2 s"
    listed = report.model_copy(update={"items": events, "users": nothing})
    assert describe(listed) == "3 events of 3 users and 2 items; attributes of 3 items; in 1.2 s"
