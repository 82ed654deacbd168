"""What an upgrade is worth as tables, and the verdict in a line."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from recsys.compatible.matrix import Compatibility, Estimate


def compatibility_tables(outcome: Compatibility) -> Iterator[Table]:
    """The matrix, what changes for users, and indexes on their way."""
    yield _matrix(outcome)
    yield _changes(outcome)
    if outcome.mixed:
        yield _on_its_way(outcome)


def verdict(outcome: Compatibility) -> str:
    """Go, or no-go and why."""
    if outcome.go:
        sure = "" if outcome.gain.low > 0 else ", though its interval reaches 0"
        return f"go: new queries find {outcome.gain.value:+.4f} in the old index{sure}"
    return "no-go: " + "; ".join(outcome.reasons)


def _matrix(outcome: Compatibility) -> Table:
    how = "no map" if outcome.method is None else outcome.method
    table = Table(
        title=f"Recall@{outcome.k}, {how}, {outcome.requests:,} requests, "
        f"{outcome.items:,} items in the old index",
        caption="95 % bootstrap intervals over requests",
        box=box.SIMPLE,
    )
    table.add_column("")
    for items in ("old", "new"):
        table.add_column(f"{items} items", justify="right", no_wrap=True)
    for queries in ("old", "new"):
        cells = (_estimate(outcome.cells[f"{queries}/{items}"]) for items in ("old", "new"))
        table.add_row(f"{queries} queries", *cells)
    table.add_section()
    strict = "met" if outcome.strict else "not met"
    table.add_row("gain, old items", _estimate(outcome.gain, "+"), f"strict criterion {strict}")
    return table


def _changes(outcome: Compatibility) -> Table:
    table = Table(title="What people notice, against today", box=box.SIMPLE)
    table.add_column("")
    for heading in ("negative flips", f"overlap (RBO, p = {outcome.persistence:g})"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in outcome.flips:
        queries, items = cell.split("/")
        table.add_row(
            f"{queries} queries, {items} items",
            f"{outcome.flips[cell]:.4f}",
            f"{outcome.overlap[cell]:.4f}",
        )
    return table


def _on_its_way(outcome: Compatibility) -> Table:
    spreads = ", ".join(
        f"{half.replace('_', ' ')} {spread.mean:.3f} (sd {spread.sd:.3f})"
        for half, spread in outcome.scores.items()
    )
    table = Table(
        title=f"Recall@{outcome.k} of an index on its way",
        caption=f"scores of new queries: {spreads}",
        box=box.SIMPLE,
    )
    headings = ("re-embedded", "new queries", "scores not calibrated", "old queries")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in outcome.mixed:
        old = "-" if each.old_queries is None else f"{each.old_queries:.4f}"
        table.add_row(f"{each.share:.0%}", f"{each.recall:.4f}", f"{each.uncalibrated:.4f}", old)
    return table


def _estimate(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (f"{x:{sign}.4f}" for x in estimate)
    return f"{value} [{low}, {high}]"
