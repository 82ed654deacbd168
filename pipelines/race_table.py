"""What came of a race as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table


def race_table(record: dict[str, Any]) -> Table:
    """A row a retriever, the best on top."""
    table = Table(
        title=f"{record['name']}, validation, {record['protocol']} "
        f"({record['protocol_fingerprint']}), {record['users']:,} users",
        box=box.SIMPLE,
    )
    table.add_column("retriever", no_wrap=True)
    for name in (record["metric"], "p", "epochs", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in record["entries"]:
        epochs = f"{entry['best_epoch']} of {entry['epochs']}" if entry["epochs"] else "-"
        table.add_row(
            entry["name"],
            "failed" if entry["value"] is None else f"{entry['value']:.4f}",
            "-" if entry["p_holm"] is None else f"{entry['p_holm']:.4f}",
            epochs,
            f"{entry['seconds']:.1f}",
        )
    table.caption = "p: of a paired test against the best, corrected for their number"
    return table
