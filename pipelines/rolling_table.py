"""Figures at several origins as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from recsys.figure import looked_at_first


def rolling_table(record: dict[str, Any]) -> Table:
    """A row for each retriever and figure that people look at first: at every origin, and the mean
    of all with the standard deviation."""
    origins = record["origins"]
    table = Table(
        title=f"test, {record['protocol']}, {len(origins)} origins",
        caption="mean: of all origins alike; sd: of a sample; below: when the test begins",
        box=box.SIMPLE,
    )
    table.add_column("model", overflow="fold")
    table.add_column("figure", no_wrap=True)
    for origin in origins:
        table.add_column(f"{origin['from'][:10]}\n{origin['asked']:,} asked", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("sd", justify="right")
    figures = record["figures"]
    own = looked_at_first(figures[record["model"]], record["metric"])
    for name, of in figures.items():
        table.add_section()
        for metric in own:
            if metric in of:
                told = of[metric]
                spread = "" if told["sd"] is None else f"{told['sd']:.4f}"
                values = [f"{value:.4f}" for value in told["values"]]
                table.add_row(name, metric, *values, f"{told['mean']:.4f}", spread)
    return table
