"""The figures of a run as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from recsys.evaluation import shown_lists
from recsys.evaluation.predictions import FIGURES
from recsys.figure import Figure, cut_offs, first_cut
from recsys.runs.finished import measured

COLD = ("users", "items")  # slices of those with hardly any events, in every table


def metrics_table(results: dict[str, Any]) -> Table:
    """The figures people look at first, the model on top."""
    kind, models = measured(results)
    title = f"{results['name']}, test, {results['protocol']} ({results['protocol_fingerprint']})"
    if kind == "rankers":
        names = _of_rankers(next(iter(models.values())))
    else:
        names = _first_figures(next(iter(models.values()))["metrics"])
        title += f", {results['candidates']:,} candidates"
    table = Table(title=title, box=box.SIMPLE, collapse_padding=True)
    table.add_column(kind.removesuffix("s"), overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    cold = COLD if kind == "retrievers" else ()
    for slicing in cold:
        table.add_column(f"cold\n{slicing}", justify="right", no_wrap=True)
    for name, summary in models.items():
        figures = [_figure(summary, figure) for figure in names]
        table.add_row(name, *figures, *(_cold(summary, slicing) for slicing in cold))
    if cold:
        table.caption = f"cold: {names[0]} of users, and of items, with hardly any events"
    for summary in models.values():
        if before := summary.get("uncalibrated"):
            table.caption = f"calibrated on validation: {_mended(summary['metrics'], before)}"
    return table


def _mended(after: dict[str, Any], before: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {before[name]:.4f} -> {after[name]:.4f}"
        for name in ("LogLoss", "ECE")
        if before.get(name) is not None
    )


def _of_rankers(summary: dict[str, Any]) -> list[str]:
    """Not all of them fit 80 columns."""
    if "lists" in summary:
        return [*shown_lists.FIGURES, "AUC", "LogLoss"]
    return list(FIGURES[:-1])


def _first_figures(metrics: dict[str, Any]) -> list[str]:
    k = first_cut(cut_offs(map(Figure.parse, metrics)))
    # only one of these fits 80 columns: in a log with costs profit is what counts
    last = (Figure(name, k) for name in ("ProfitCapture", "GMVCapture"))
    fourth = next((figure for figure in last if str(figure) in metrics), Figure("HR", k))
    return [str(figure) for figure in (Figure("Recall", k), Figure("NDCG", k), fourth)]


def _cold(summary: dict[str, Any], slicing: str) -> str:
    """The first figure of cold users or items; "-" where there are none."""
    cold = summary["slices"].get(slicing, {}).get("cold")
    return "-" if cold is None else f"{next(iter(cold['metrics'].values())):.4f}"


def _figure(summary: dict[str, Any], name: str) -> str:
    value = summary["metrics"].get(name)
    if value is None:
        return "-"
    low, high = summary["ci95"][name]
    decides = ("MRR", "ListAUC") if "lists" in summary else ("NDCG", "AUC")
    shown = Figure.parse(name).name in decides
    interval = f" ±{(high - low) / 2:.4f}" if shown else ""
    return f"{value:.4f}{interval}"
