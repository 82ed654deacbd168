"""Steps and memory of clusters as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PARTS = {  # by what they are of
    "what no size changes": ("overhead",),
    "dense": ("dense",),
    "rows of tables": ("tables",),
    "ids, vectors and gradients sent": ("ids", "vectors", "gradients"),
    "dense gradients summed": ("summed",),
}


@matplotlib.rc_context({"svg.hashsalt": "scaling", "svg.fonttype": "none"})
def draw(cells: list[dict[str, Any]], rows: int, memory: float, path: Path) -> None:
    """Parts of steps over the number of GPUs for tables of so many rows, by how lists are looked
    up; and GB on the fullest process over rows, with the `memory` that each has."""
    kinds = list(dict.fromkeys(of["lists"] for of in cells))
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    *steps, held = figure.subplots(1, len(kinds) + 1)
    for kind, axes in zip(kinds, steps, strict=True):
        _steps(axes, [of for of in cells if of["rows"] == rows and of["lists"] == kind])
        axes.set_title(f"{rows:.0e} users, histories as {kind}".replace("e+0", "e"), fontsize=10)
    top = max(axes.get_ylim()[1] for axes in steps)
    for axes in steps:
        axes.set_ylim(0, top)
    _held(held, [of for of in cells if of["lists"] == kinds[-1]], memory)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def _steps(axes: Axes, cells: list[dict[str, Any]]) -> None:
    places, bottom = range(len(cells)), [0.0] * len(cells)
    for label, names in PARTS.items():
        height = [sum(of["parts_ms"][name] for name in names) for of in cells]
        axes.bar(places, height, bottom=bottom, label=label, width=0.7)
        bottom = [low + high for low, high in zip(bottom, height, strict=True)]
    for place, of, top in zip(places, cells, bottom, strict=True):
        if not of["fits"]:
            axes.annotate(
                "does not fit",
                (place, top),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    axes.set_xticks(places, [str(of["world"]) for of in cells])
    axes.set(xlabel="GPUs", ylabel="ms a step")
    axes.set_ylim(0, 1.6 * max(bottom))
    axes.legend(frameon=False, fontsize=7, loc="upper left")


def _held(axes: Axes, cells: list[dict[str, Any]], memory: float) -> None:
    for world in dict.fromkeys(of["world"] for of in cells):
        own = [of for of in cells if of["world"] == world]
        label = f"{world} GPU{'s' if world > 1 else ''}"
        axes.plot([of["rows"] for of in own], [of["gb"] for of in own], marker="o", label=label)
    axes.axhline(memory, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        f"{memory:g} GB", (cells[0]["rows"], memory), (0, 3), textcoords="offset points", fontsize=7
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="users",
        ylabel="GB on the fullest process",
        title="memory",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=7)
