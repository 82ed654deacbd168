"""What a cascade's stages find, keep and lose, as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from recsys.evaluation.funnel import FUNNEL, LATENCY, RECALL, label_of, losses
from recsys.runs.latency import WHOLE

NONE = "-"


def funnel_table(results: dict[str, Any]) -> Table | None:
    """The stages of the run's model; None where it has only one."""
    models = results.get("retrievers") or {"": {}}
    name, summary = next(iter(models.items()))
    if FUNNEL not in summary:
        return None
    stages = summary[FUNNEL]
    captures = [kind for kind in stages[0]["metrics"] if kind.endswith("Capture")]
    latency = summary["seconds"].get(LATENCY, {})
    table = Table(
        title=f"{name}: what is left after each stage, {results['protocol']}",
        caption="lost: of the targets, since the stage before; ms: of a request, p50 and p99",
        box=box.SIMPLE,
        collapse_padding=True,
    )
    table.add_column("stage", overflow="fold")
    for heading in ("items", RECALL, "lost", *captures, "ms", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage, lost in zip(stages, losses(stages), strict=True):
        metrics = stage["metrics"]
        low, high = stage["ci95"][RECALL]
        table.add_row(
            stage["stage"],
            f"{stage['items']:,.1f}",
            f"{metrics[RECALL]:.4f} ±{(high - low) / 2:.4f}",
            NONE if lost is None else f"{lost:.4f}",
            *(f"{metrics[kind]:.4f}" for kind in captures),
            *_taken(latency.get(label_of(stage["stage"]), {})),
        )
    if WHOLE in latency:
        blank = [""] * (3 + len(captures))
        table.add_row(WHOLE, *blank, *_taken(latency[WHOLE]))
    return table


def _taken(milliseconds: dict[str, float]) -> tuple[str, str]:
    p50, p99 = (milliseconds.get(name) for name in ("p50", "p99"))
    return tuple(NONE if value is None else f"{value:.2f}" for value in (p50, p99))  # type: ignore[return-value]
