"""What a race leaves: `race.json`, and the config of the best as `chosen.toml`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.durable import write_text
from recsys.config import RunConfig
from recsys.runs.folder import RunFolder
from recsys.runs.race import Entry
from recsys.runs.search import protocol_of
from recsys.statistics.significance import holm, randomisation_test
from recsys.tuning.options import TuneConfig

LEVEL = 0.05


def write_race(config: RunConfig, entries: Sequence[Entry], files: RunFolder) -> dict[str, Any]:
    """Write what came of the entries, the best first; returns what `race.json` holds.

    `p_holm` is that of the paired randomisation test of an entry against the best, over the users
    of the validation, corrected for their number; None where there is none.
    """
    best = entries[0]
    tests = dict(zip((entry.name for entry in entries), _tests(entries), strict=True))
    record = {
        "name": config.name,
        "metric": config.metric,
        "seed": config.seed,
        **protocol_of(best.examples),
        "users": len(best.users),
        "best": best.name,
        "entries": [
            {
                "name": entry.name,
                "config": entry.config.model.model_dump(mode="json"),
                "value": None if math.isinf(entry.value) else entry.value,
                "p_holm": tests[entry.name],
                "epochs": entry.epochs,
                "best_epoch": entry.best_epoch,
                "rounds": entry.rounds,
                "seconds": round(entry.seconds, 3),
                "figures": {n: v for n, v in entry.figures.items() if math.isfinite(v)},
                "reason": entry.reason,
            }
            for entry in entries
        ],
    }
    write_text(json.dumps(record, indent=2) + "\n", files.race_record)
    write_text(_chosen(best, record), files.chosen_config)
    return record


def race_sentence(record: dict[str, Any]) -> str:
    """Which retriever suits the log, and which are not shown to be worse."""
    ran = [entry for entry in record["entries"] if entry["reason"] is None]
    best, *others = ran
    near = [
        entry["name"] for entry in others if entry["p_holm"] is None or entry["p_holm"] >= LEVEL
    ]
    besides = f"; not shown to be worse: {', '.join(near)}" if near else ""
    return (
        f"{best['name']} suits this log best: validation {record['metric']} {best['value']:.4f}, "
        f"of {len(ran)} that ran, over {record['users']:,} users{besides}."
    )


def _tests(entries: Sequence[Entry]) -> list[float | None]:
    """The corrected p-value of each against the first, which has none."""
    best, *others = entries
    p = np.full(len(entries), np.nan)
    for place, entry in enumerate(others, 1):
        if entry.reason is None and len(best.values) and np.array_equal(best.users, entry.users):
            test = randomisation_test(best.values[:, None], entry.values[:, None])
            p[place] = test[0]
    return [None if math.isnan(value) else float(value) for value in holm(p)]


def _chosen(best: Entry, record: dict[str, Any]) -> str:
    config = best.config.model_copy(update={"tune": TuneConfig()})
    return (
        f"# Validation {record['metric']} {best.value:.4f} ({record['protocol']}, "
        f"{record['protocol_fingerprint']}), the best of {len(record['entries'])} retrievers.\n"
        + config.to_toml()
    )
