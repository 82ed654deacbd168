"""The figures of a run: written to its folder and its tracker, and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from feature_store.durable import read_json, write_text
from feature_store.errors import ConfigError
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.runs.finished import Run, measured
from recsys.runs.folder import RunFolder
from recsys.runs.work import Work
from recsys.tracking import Tracker


def describe(config: RunConfig, examples: Examples, candidates: int | None) -> dict[str, Any]:
    """What figures are of: run, protocol and data."""
    summary = examples.summary
    return {
        "name": config.name,
        "seed": config.seed,
        "protocol": summary.protocol,
        "protocol_fingerprint": summary.fingerprint,
        "protocol_parts": summary.parts,
        **({} if candidates is None else {"candidates": candidates}),
        "events": summary.events,
        "data": {
            "source": config.data.source,
            "users": len(examples.vocabulary(examples.schema.user)) - 1,
            "items": examples.num_items - 1,
        },
    }


def earlier_results(files: RunFolder, description: dict[str, Any]) -> dict[str, Any]:
    """What the run has measured of retrievers already; nothing where it has not.

    Raises ConfigError where they are of another protocol than the `description` says, or of a
    ranker.
    """
    if not read_json(files.metrics):  # none, or half of them: they are made again
        return {}
    results = Run(files.path).results
    if "rankers" in results:
        raise ConfigError(f"{files.path} holds figures of a ranker, which makes no lists")
    if results["protocol_fingerprint"] != description["protocol_fingerprint"]:
        raise ConfigError(
            f"{files.path} holds figures of another protocol ({results['protocol']}, "
            f"{results['protocol_fingerprint']}): choose another name with name=..."
        )
    return results


def given_lists(
    files: RunFolder, description: dict[str, Any], note: Callable[[str], None]
) -> dict[str, Any]:
    """Figures of lists made elsewhere, which stay when the run is measured anew, by name.

    Those that do not fit any more, or whose lists are gone, are noted and left out.
    """
    if not read_json(files.metrics):  # none, or half of them: they are made again
        return {}
    results, kept = Run(files.path).results, {}
    same = all(
        results.get(key) == description[key] for key in ("protocol_fingerprint", "candidates")
    )
    for name, figures in results.get("retrievers", {}).items():
        if figures.get("config"):
            continue
        if same and files.lists_of(name).exists():
            kept[name] = figures
        else:
            note(
                f"{name}: these lists were measured under another protocol, or are gone: measure "
                "them again with --recommendations"
            )
    return kept


def write_figures(work: Work, results: dict[str, Any], tracker: Tracker) -> None:
    """Write them to `metrics.json`, and what they took beside it, which never repeats."""
    files = work.files
    kind, models = measured(results)
    seconds = {name: figures["seconds"] for name, figures in models.items()}
    write_text(json.dumps(seconds, indent=2) + "\n", files.seconds)
    timeless = {
        name: {key: value for key, value in figures.items() if key != "seconds"}
        for name, figures in models.items()
    }
    written = results | {kind: timeless}
    write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", files.metrics)
    # the protocol's name is part of every figure's: one must not be read for another
    protocol = results["protocol"]
    for name, figures in models.items():
        whose = "" if name == work.config.model.name else f"{name}/"
        logged = {f"test/{protocol}/{whose}{m}": v for m, v in figures["metrics"].items()}
        tracker.log_metrics({name: v for name, v in logged.items() if v is not None})
    tracker.log_files(files.metrics, files.lists if kind == "retrievers" else files.predictions)
