"""What a search found: the best trials as a table, and a baseline to paste."""

from __future__ import annotations

from typing import Any

import tomli_w
from rich import box
from rich.table import Table

from recsys.report.search_chart import labels_of, text_of
from recsys.retrievers import retriever_class
from recsys.runs.search import best_trial
from recsys.tuning.study import counts


def trials_table(record: dict[str, Any], rows: int = 10) -> Table:
    """The best trials, the best one on top."""
    table = Table(
        title=f"{record['name']}, validation, {record['protocol']} "
        f"({record['protocol_fingerprint']}), {counts(record['trials'])}",
        box=box.SIMPLE,
    )
    table.add_column("trial", justify="right")
    table.add_column(record["metric"], justify="right", no_wrap=True)
    for label in labels_of(record["space"]).values():
        table.add_column(label, justify="right")
    table.add_column("seconds", justify="right")
    finished = [trial for trial in record["trials"] if trial["state"] == "finished"]
    for trial in sorted(finished, key=lambda trial: -trial["value"])[:rows]:
        values = (text_of(value) for value in trial["values"].values())
        table.add_row(
            str(trial["number"]), f"{trial['value']:.4f}", *values, f"{trial['seconds']:.1f}"
        )
    return table


def baseline_snippet(record: dict[str, Any]) -> str | None:
    """The tuned retriever as TOML, to be pasted into a config as one of its baselines.

    None where it learns by gradient: such a retriever is the model of a run of its own.
    """
    if retriever_class(record["retriever"]).learns_by_gradient:
        return None
    values = {key.split(".", 1)[1]: value for key, value in best_trial(record)["values"].items()}
    return "[[baselines]]\n" + tomli_w.dumps({"name": record["retriever"], **_nested(values)})


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return tree
