"""The figures of a run: written to its folder and its tracker, and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from feature_store.durable import read_json, write_text
from feature_store.errors import ConfigError
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.evaluation.ceiling import CEILING, sentences
from recsys.evaluation.funnel import FUNNEL
from recsys.figure import Figure, looked_at_first
from recsys.runs.finished import Run, measured
from recsys.runs.folder import RunFolder
from recsys.runs.verdict import VERDICT, sentence
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
            "users": examples.num_users,
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
    """Write them to `metrics.json`, and what they took beside it, which never repeats.

    The report that is there goes first: it is of other figures, and stays away until one of these
    is written, however the program ends.
    """
    files = work.files
    files.report.unlink(missing_ok=True)
    kind, models = measured(results)
    seconds = {name: figures["seconds"] for name, figures in models.items()}
    write_text(json.dumps(seconds, indent=2) + "\n", files.seconds)
    timeless = {
        name: {key: value for key, value in figures.items() if key != "seconds"}
        for name, figures in models.items()
    }
    written = results | {kind: timeless}
    write_text(json.dumps(written, indent=2, allow_nan=False) + "\n", files.metrics)
    _track(work.config, results, tracker)
    beside = (files.lists,) if kind == "retrievers" else (files.predictions, files.list_figures)
    tracker.log_files(files.metrics, *(folder for folder in beside if folder.exists()))


def _track(config: RunConfig, results: dict[str, Any], tracker: Tracker) -> None:
    """The figures people look at first: the model's as metrics, of the others one each, and all of
    them as a table where the run's page begins. Hundreds of metrics would hide them."""
    _, models = measured(results)
    protocol = results["protocol"]  # part of every figure's name: one must not be read for another
    own = looked_at_first(models[next(iter(models))]["metrics"], config.metric)
    for name, figures in models.items():
        is_model = name == config.model.name
        names = own if is_model else [_deciding(config, own)]
        values = {m: figures["metrics"].get(m) for m in names}
        whose = "" if is_model else f"{name}/"
        tracker.log_metrics(
            {f"test/{protocol}/{whose}{m}": v for m, v in values.items() if v is not None}
        )
    tracker.log_metrics(
        {
            f"test/{protocol}/funnel/{stage['stage']}/{name}": value
            for figures in [*models.values()][:1]
            for stage in figures.get(FUNNEL, ())
            for name, value in stage["metrics"].items()
        }
    )
    tracker.log_metrics({f"test/{protocol}/{name}": v for name, v in _beside(results).items()})
    rows = [
        f"| {name} | {' | '.join(_cell(figures['metrics'].get(m)) for m in own)} |"
        for name, figures in models.items()
    ]
    said = [sentence(config.model.name, results[VERDICT])] if VERDICT in results else []
    tracker.describe(
        f"**{config.model.name}** on {config.data.source}, {protocol}.\n\n"
        f"| test | {' | '.join(own)} |\n|---|{'---|' * len(own)}\n"
        + "\n".join(rows)
        + "\n\n"
        + "\n\n".join([*said, *sentences(results)])
        + "\n\n"
        "All figures with their intervals: `report.html` and `metrics.json` under *Artifacts*."
    )


def _beside(results: dict[str, Any]) -> dict[str, float]:
    """What the figures are worth, as numbers that runs can be sorted by: whether the model beats
    its baselines, 1 or 0, and the share of the targets that could be found at all."""
    beside = {}
    if VERDICT in results:
        beside["beats_baselines"] = float(results[VERDICT]["beats_baselines"])
    if CEILING in results and (targets := results[CEILING]["targets"])["all"]:
        beside["findable"] = targets["findable"] / targets["all"]
    return beside


def _deciding(config: RunConfig, names: list[str]) -> str:
    """The figure that decides between models, or else the first NDCG."""
    ndcg = [name for name in names if Figure.parse(name).name == "NDCG"]
    return config.metric if config.metric in names else [*ndcg, *names][0]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
