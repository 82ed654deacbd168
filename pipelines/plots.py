"""Pictures of a run: how it trained, and how it stands beside the baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(folder: Path, results: dict[str, Any], metric: str) -> list[Path]:
    """Write `plots/training.png` (where there was training) and `plots/metrics.png`."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    drawn = []
    training = folder / "training.json"
    if training.exists():
        drawn.append(_training(json.loads(training.read_text()), metric, plots / "training.png"))
    drawn.append(_metrics(results, plots / "metrics.png"))
    return drawn


def _training(record: dict[str, Any], metric: str, path: Path) -> Path:
    history = record["history"]
    figure, left = plt.subplots(figsize=(7, 4))
    epochs = [h["epoch"] for h in history]
    left.plot(epochs, [h["loss"] for h in history], color="tab:gray", label="training loss")
    left.set(xlabel="epoch", ylabel="loss", title=f"best epoch {record['best_epoch']}")
    right = left.twinx()
    measured = [h for h in history if metric in h]
    right.plot([h["epoch"] for h in measured], [h[metric] for h in measured], "o-", label=metric)
    right.axvline(record["best_epoch"], linestyle=":", color="tab:green")
    right.set(ylabel=f"validation {metric}")
    figure.legend(loc="lower right", bbox_to_anchor=(0.88, 0.15))
    return _save(figure, path)


def _metrics(results: dict[str, Any], path: Path) -> Path:
    figure, axes = plt.subplots(1, 2, figsize=(9, 4))
    for axis, metric in zip(axes, ("Recall", "NDCG"), strict=True):
        for name, found in results["retrievers"].items():
            values = {
                int(n.split("@")[1]): v
                for n, v in found["metrics"].items()
                if n.startswith(f"{metric}@")
            }
            axis.plot(list(values), list(values.values()), "o-", label=name)
        axis.set(xlabel="k", ylabel=f"{metric}@k", title=results["protocol"])
        axis.set_xscale("log")
        axis.legend()
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
