"""A search for options as a picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from feature_store.durable import written


@matplotlib.rc_context({"text.parse_math": False})  # names are text
def draw_search(record: dict[str, Any], path: Path) -> Path:
    """Draw the best figure so far, and every option's values against the figure."""
    finished = [trial for trial in record["trials"] if trial["state"] == "finished"]
    columns = min(3, 1 + len(record["space"]))
    rows = -(-(1 + len(record["space"])) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    figure.suptitle(f"{record['name']}, validation, {record['protocol']}")
    numbers, values = [t["number"] for t in finished], [t["value"] for t in finished]
    so_far = list(accumulate(values, max))
    axes[0].plot(numbers, values, "o", color="tab:gray", markersize=4, label="trial")
    axes[0].step(numbers, so_far, where="post", label="best so far")
    axes[0].set(xlabel="trial", ylabel=record["metric"])
    axes[0].legend()
    label = labels_of(record["space"])
    for axis, (key, domain) in zip(axes[1:], record["space"].items(), strict=False):
        tried = [t["values"][key] for t in finished]
        if "choices" in domain:
            labels = [text_of(choice) for choice in domain["choices"]]
            axis.plot([labels.index(text_of(value)) for value in tried], values, "o", markersize=4)
            axis.set_xticks(range(len(labels)), labels)
        else:
            axis.plot(tried, values, "o", markersize=4)
            axis.set_xscale("log" if domain.get("log") else "linear")
        axis.set(xlabel=label[key], ylabel=record["metric"])
    for axis in axes[1 + len(record["space"]) :]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        figure.savefig(file, dpi=110, format="png")
    return path


def labels_of(keys: Iterable[str]) -> dict[str, str]:
    """The last part of every option's name, or all of it where two would be alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    count = Counter(last.values())
    return {key: short if count[short] == 1 else key for key, short in last.items()}


def text_of(value: Any) -> str:
    """A value of an option, short."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')
