"""A plan for many processes as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from feature_store.durable import written
from recsys.embeddings.planning import GB, RESERVE
from recsys.runs.plan import Planned


@matplotlib.rc_context({"text.parse_math": False})  # names are text
def draw_plan(planned: Planned, path: Path) -> Path:
    """Bars of every process, stacked by table, and the line that they must stay below."""
    plan, limit = planned.plan, planned.memory * (1 - RESERVE) / GB
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    ranks, bottom = list(range(plan.world)), [plan.dense / GB] * plan.world
    named = {"what is dense": axes.bar(ranks, bottom, color="#8a8f98", width=0.9)}
    for index, placement in enumerate(sorted(plan.placements, key=lambda p: -p.table.bytes)):
        height = [0.0] * plan.world
        for shard in placement.shards:
            height[shard.rank] += (shard.bytes + placement.state_bytes(shard)) / GB
        bars = axes.bar(ranks, height, bottom=bottom, color=f"C{index % 10}", width=0.9)
        if index < 9:
            named[placement.table.name] = bars
        bottom = [a + b for a, b in zip(bottom, height, strict=True)]
    axes.axhline(limit, color="black", linewidth=1, linestyle="--")
    note = f"{limit:.3g} GB: memory less {RESERVE:.0%}"
    axes.annotate(note, (0, limit), (4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="process", ylabel="GB of weights and optimizer state", title=planned.title)
    axes.set_ylim(0, 1.15 * max(limit, *bottom))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    look: dict[str, Any] = {"bbox_to_anchor": (1, 1), "frameon": False, "fontsize": 8}
    axes.legend(list(named.values()), list(named), loc="upper left", **look)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        FigureCanvasAgg(figure).print_figure(file, dpi=150, format="png")
    return path
