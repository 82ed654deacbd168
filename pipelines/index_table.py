"""How an index was chosen, as a table."""

from __future__ import annotations

from rich import box
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from recsys.serving.index.record import MeasuredIndex, PromiseRecord


def index_table(name: str, record: PromiseRecord) -> Lines:
    """Of every kind what was tried last, the one that was chosen, and what it was asked to keep."""
    items, k = record.chosen.items, record.promise.k
    table = Table(title=f"index of {name} by promise: {record.promise}", box=box.SIMPLE)
    table.add_column("index", overflow="fold")
    for column in ("items", f"recall@{k}", "queries/s", "ms alone", "bytes/item", "MB of all"):
        table.add_column(column, justify="right", no_wrap=True)
    for figures in (*most_tried(record.candidates), *record.missed, record.chosen):
        table.add_row(
            str(figures.config),
            f"{figures.items:,}",
            f"{figures.recall:.4f}",
            f"{figures.queries_per_second:,.0f}",
            f"{figures.milliseconds:.2f}",
            f"{figures.bytes_per_item:.1f}",
            f"{figures.megabytes(items):,.1f}",
            style="bold" if figures is record.chosen else None,
        )
    threads = f"{record.threads} thread{'' if record.threads == 1 else 's'}"
    return Lines(table, Text(f"chosen: {record.chosen.config}; on {threads} of {record.machine}"))


def most_tried(candidates: tuple[MeasuredIndex, ...]) -> list[MeasuredIndex]:
    """Of each family of candidates, which stand together, the one with most effort."""
    following = (*candidates[1:], None)
    return [
        each
        for each, after in zip(candidates, following, strict=True)
        if after is None or after.config.label != each.config.label
    ]
