"""A comparison as a table: figures, differences, intervals and p-values."""

from __future__ import annotations

import math

from rich import box
from rich.table import Table
from rich.text import Text

from recsys.report.comparison import Comparison

NONE = "—"


def comparison_table(comparison: Comparison) -> Table:
    """A block for each metric, in it a row for each run; the others are held against the first."""
    first = comparison.runs[0].label
    made = int(comparison.frame["p"].notna().sum())
    among = comparison.candidates
    table = Table(
        title=f"test, {comparison.protocol} ({comparison.fingerprint}), "
        + ("" if among is None else f"{among:,} candidates, ")
        + f"{comparison.users:,} users",
        caption=f"difference: from {first}; p: paired {comparison.test} test, two-sided; "
        f"Holm: p corrected (tests made: {made}); below: 95 % bootstrap intervals over users, "
        "or lists",
        box=box.SIMPLE,
    )
    table.add_column("run", overflow="fold")
    for heading in ("figure", "difference", "p", "Holm"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, rows in comparison.frame.groupby("metric", sort=False):
        table.add_section()
        table.add_row(Text(str(metric), style="bold"))
        for row in rows.to_dict("records"):
            table.add_row(
                row["run"],
                _figure(row["value"], row["low"], row["high"]),
                _figure(row["difference"], row["difference_low"], row["difference_high"], "+"),
                _p(row["p"]),
                _p(row["p_holm"]),
            )
    return table


def _figure(value: float, low: float, high: float, sign: str = "") -> str:
    """A figure with its interval, in a line below it so that the table fits in 80 columns."""
    numbers = [x for x in (value, low, high) if not math.isnan(x)]
    if not numbers:
        return NONE
    digits = 4 if max(map(abs, numbers)) < 100 else 1
    shown, *ends = (f"{x:{sign},.{digits}f}" for x in (value, low, high))
    return shown + (f"\n[{', '.join(ends)}]" if len(numbers) == 3 else "")


def _p(p: float) -> str:
    return NONE if math.isnan(p) else f"{p:.4f}"
