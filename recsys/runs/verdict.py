"""Verdict: whether a run's model is better than what costs nothing to train.

A figure beside another says little: over few users a difference may be chance. The model is held
against every baseline by the paired test that `recsys compare` makes, corrected for their number.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from feature_store.durable import read_json
from feature_store.parquet import read_parquet
from recsys.config import RunConfig
from recsys.figure import Figure, cut_offs, first_cut
from recsys.runs.folder import RunFolder
from recsys.statistics.bootstrap import mean_intervals
from recsys.statistics.significance import holm, randomisation_test

VERDICT = "verdict"
"""What `metrics.json` calls it."""
LEVEL = 0.05
_SWAPS = 2 << 30  # users times permutations: some seconds
_PERMUTATIONS = (1_000, 10_000)


def verdict(
    config: RunConfig, files: RunFolder, model: str, baselines: Sequence[str]
) -> dict[str, Any] | None:
    """What `metrics.json` holds of it: by which figure, over how many users, or lists of a ranker,
    and what came of the model `against` each of the baselines; None where there are none.

    The figure is that which chooses the best epoch, or, where users have no such figure, NDCG, and
    lists MRR. The model beats its baselines where it is above every one of them, with p below 5 %.
    """
    if not baselines:
        return None
    unit = "user" if config.ranker is None else "list"
    path_of = files.lists_of if config.ranker is None else files.list_figures_of
    metric = _metric(config, path_of(model))
    tables = [
        read_parquet(path_of(name), [unit, metric]).sort_by(unit) for name in (model, *baselines)
    ]
    assert all(table.column(unit).equals(tables[0].column(unit)) for table in tables)
    own, *others = (table.column(metric).to_numpy().astype(np.float64) for table in tables)
    theirs = np.stack(others, axis=1)
    ours = np.broadcast_to(own[:, None], theirs.shape)
    few, many = _PERMUTATIONS
    permutations = max(few, min(many, _SWAPS // max(1, len(own))))
    p = randomisation_test(ours, theirs, permutations=permutations)
    differences = np.nanmean(ours - theirs, axis=0)
    low, high = mean_intervals(ours - theirs, replicates=config.evaluation.replicates)
    columns = {
        "value": np.nanmean(theirs, axis=0),
        "difference": differences,
        "low": low,
        "high": high,
        "p": p,
        "p_holm": holm(p),
    }
    against = {
        name: {key: float(values[place]) for key, values in columns.items()}
        for place, name in enumerate(baselines)
    }
    return {
        "metric": metric,
        "value": float(np.nanmean(own)),
        f"{unit}s": int((~np.isnan(own)).sum()),
        "permutations": permutations,
        "beats_baselines": all(map(_better, against.values())),
        "best_baseline": max(against, key=lambda name: against[name]["value"]),
        "against": against,
    }


def sentence(model: str, outcome: dict[str, Any]) -> str:
    """The verdict, as people read it."""
    best = outcome["best_baseline"]
    against = outcome["against"][best]
    behind = [name for name, result in outcome["against"].items() if not _better(result)]
    if not behind:
        said = f"{model} beats its baselines; the best of them is {best}"
    elif against["difference"] < 0 and against["p_holm"] < LEVEL:
        said = f"{model} loses to {best}"
    else:
        said = f"{model} is not shown to beat {' and '.join(behind)}; the best baseline is {best}"
    units = "users" if "users" in outcome else "lists"
    p = "p < .001" if against["p_holm"] < 0.001 else f"p = {against['p_holm']:.3f}"
    return (
        f"{said}: {outcome['metric']} {outcome['value']:.4f} against {against['value']:.4f}, a "
        f"difference of {against['difference']:+.4f} (95 % {against['low']:+.4f} to "
        f"{against['high']:+.4f}, {p}) over {outcome[units]:,} {units}."
    )


def earns_alias(results: dict[str, Any]) -> bool:
    """Whether a model of these `metrics.json` is one to go on with: it beats its baselines, or was
    held against none."""
    return VERDICT not in results or bool(results[VERDICT]["beats_baselines"])


def advice(config: RunConfig, files: RunFolder, outcome: dict[str, Any]) -> list[str]:
    """What to try where the model does not beat its baselines; commands that can be pasted."""
    if outcome["beats_baselines"]:
        return []
    run, name = shlex.quote(str(files.path)), outcome["best_baseline"]
    if config.ranker is not None:
        return []
    if config.cascade is not None:
        return [f"where the stages lose what there was to be found: {files.report}"]
    tried = [
        f"which model suits this log: recsys tune {run} "
        f'\'tune.retrievers=["{name}", "{config.model.name}"]\''
    ]
    if files.training_record.exists():
        record = read_json(files.training_record)
        best, epochs = record.get("best_epoch"), len(record.get("history", ()))
        if best == 1 and epochs > 1:
            tried.append(
                "the first epoch was the best: lower trainer.optimizer.learning_rate, or raise "
                "retriever.dropout"
            )
        elif best and best == epochs:
            tried.append(
                f"the last epoch was the best, there is more to learn: recsys run {run} "
                f"trainer.epochs={3 * epochs} --resume"
            )
    return tried


def _better(result: dict[str, float]) -> bool:
    return result["difference"] > 0 and result["p_holm"] < LEVEL


def _metric(config: RunConfig, path: Path) -> str:
    columns = pq.read_schema(path).names
    if config.metric in columns:
        return config.metric
    cuts = cut_offs(map(Figure.parse, columns))
    return str(Figure("NDCG", first_cut(cuts))) if cuts else "MRR"
