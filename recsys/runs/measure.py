"""A trained run -> its figures: the model, and a retriever's baselines, on the test events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from feature_store.durable import write_parquet
from feature_store.errors import ConfigError, DataError
from feature_store.protocols import TEST
from recsys.data.examples import Examples
from recsys.evaluation.ceiling import CEILING
from recsys.evaluation.given_lists import GivenLists
from recsys.evaluation.predictions import (
    Predictions,
    figures_of,
    summarise_lists,
    summarise_predictions,
)
from recsys.evaluation.shown_lists import ListFigures, ShownLists
from recsys.rankers.base import Ranker
from recsys.rankers.calibrated import Calibrated
from recsys.retrievers import build
from recsys.retrievers.base import Retriever
from recsys.runs.baselines import baselines_of
from recsys.runs.bench import Bench, Watch
from recsys.runs.build import fit, seed_all
from recsys.runs.calibration import curves_of
from recsys.runs.evaluators import predictions
from recsys.runs.explanations import explanations, write_explanations
from recsys.runs.figures import describe, earlier_results, given_lists, write_figures
from recsys.runs.fit import trained_model, training_seconds
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare_together
from recsys.runs.steps import FIGURES
from recsys.runs.verdict import VERDICT, verdict
from recsys.runs.weights import TRAINING, training_of
from recsys.runs.work import Work
from recsys.tracking import Tracker

_LONGEST_NAME = 60  # of a retriever, which names a file, too


def measure(work: Work, tracker: Tracker, watch: Watch | None = None) -> dict[str, Any]:
    """Measure the model, and a retriever's baselines, on the test events.

    Writes `metrics.json` and `per_user/<retriever>.parquet`, or `per_row/<ranker>.parquet` and of
    lists that were shown `per_list/<ranker>.parquet`; returns what `metrics.json` holds, with
    seconds. Raises DataError when nothing was trained.
    """
    if work.config.ranker is not None:
        results = _measure_ranker(work)
    else:
        results = _measure_retrievers(work, watch)
    if training := training_of(work.files):
        results[TRAINING] = training
    if work.group.leads:
        write_figures(work, results, tracker)
        FIGURES.mark_done(work.config)
    work.group.barrier()
    return results


def measure_lists(
    work: Work,
    tracker: Tracker,
    lists_of: Path | pd.DataFrame,
    name: str | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Measure lists that someone else made, under the run's protocol.

    The figures join those in the run's `metrics.json`, if there are any, as retriever `name` (by
    default the file's name). Raises DataError for what holds no such lists.
    """
    config, group = work.config, work.group
    name = name or (lists_of.stem if isinstance(lists_of, Path) else "recommendations")
    if len(name) > _LONGEST_NAME:
        raise ConfigError(f"{name!r} has more than {_LONGEST_NAME} signs: choose a --name")
    examples = prepare_together(config, phases_of(config.trainer)[-1], group)
    lists = GivenLists.read(lists_of, examples)
    bench = Bench(work, examples, watch)
    results = describe(config, examples, bench.candidates) | {CEILING: bench.ceiling()}
    earlier = earlier_results(work.files, results)
    figures = earlier.get("retrievers", {})
    model_measured = config.model.name in figures
    if name == config.model.name or figures.get(name, {}).get("config"):
        raise ConfigError(f"{config.folder} has a retriever {name!r}: choose another with --name")
    figures[name] = bench.measure(name, lists, None, None)
    if bench.watch is not None:
        for note, count in lists.notes.items():
            bench.watch.note(f"{name}: {count:,} {note}")
    results |= {key: earlier[key] for key in (VERDICT, TRAINING) if key in earlier}
    results |= {"retrievers": figures}
    if group.leads:
        if not model_measured:  # there are figures now, but not those that a run asks for
            FIGURES.forget(work.files)
        write_figures(work, results, tracker)
    return results


def _measure_retrievers(work: Work, watch: Watch | None) -> dict[str, Any]:
    config, started = work.config, time.perf_counter()
    model, examples = trained_model(config, work.group)
    learnt = model.learns_by_gradient
    seconds = training_seconds(work.files) if learnt else time.perf_counter() - started
    retriever = cast(Retriever, model)
    bench = Bench(work, examples, watch)
    results = describe(config, examples, bench.candidates) | {CEILING: bench.ceiling()}
    for note in model.notes:
        _noting(bench)(note)
    given = given_lists(work.files, results, _noting(bench))
    name: str = config.model.name
    figures: dict[str, Any] = {name: bench.measure(name, retriever, config.model, seconds)}
    for label, variant in retriever.variants().items():
        label = f"{name}_{label}"
        figures[label] = bench.measure(label, variant, config.model, None)
    baselines = []
    for baseline in baselines_of(config, examples, _noting(bench)):
        name = _unused(baseline.name, figures | given)
        baselines.append(name)
        started = time.perf_counter()
        seed_all(config.seed)
        fitted = build(baseline, config.embeddings, examples, config.seed)
        fit(fitted, name, examples)
        figures[name] = bench.measure(name, fitted, baseline, time.perf_counter() - started)
    if work.group.leads and (outcome := verdict(config, work.files, config.model.name, baselines)):
        results[VERDICT] = outcome
    return results | {"retrievers": figures | given}


def _measure_ranker(work: Work) -> dict[str, Any]:
    config, group = work.config, work.group
    model, examples = trained_model(config, group)
    ranker = cast(Ranker, model)
    name, started = config.model.name, time.perf_counter()
    ranker.to(group.device)
    curves = curves_of(config, ranker, examples, group)
    predicted = predictions(config, examples, ranker, TEST, group)
    seconds = {"evaluate": round(time.perf_counter() - started, 3)}
    if (of_training := training_seconds(work.files)) is not None:
        seconds["fit"] = round(of_training, 3)
    summaries = {}
    for task, raw in predicted.items():
        rows = replace(raw, logits=curves[task](raw.logits)) if task in curves else raw
        label = name if task == ranker.tasks[0] else f"{name}_{task}"
        if not len(rows.labels):
            raise DataError(f"labels.tasks.{task}: no test event has this label")
        if group.leads:
            _write_predictions(rows, examples, work.files.predictions_of(label))
            if rows.lists is not None:
                _write_lists(rows.lists, examples, work.files.list_figures_of(label))
        summaries[label] = {
            **summarise_predictions(rows, replicates=config.evaluation.replicates),
            "seconds": seconds,
            "config": config.model.model_dump(mode="json"),
        }
        if task in curves:
            summaries[label]["uncalibrated"] = figures_of(raw)
    if ranker.position:
        summaries |= _measure_shown(work, ranker, examples)
    told = None
    if ranker.concepts:
        asked = Calibrated(ranker, curves) if curves else ranker
        told = explanations(config, examples, asked, group.device)
    if group.leads:
        write_explanations(work.files, told)
    results = describe(config, examples, None) | {"rankers": summaries}
    if (shown := predicted[ranker.tasks[0]].shown) is not None and group.leads:
        baselines = _measure_orders(work, examples, shown)
        summaries |= baselines
        if outcome := verdict(config, work.files, name, list(baselines)):
            results[VERDICT] = outcome
    return results


def _measure_shown(work: Work, ranker: Ranker, examples: Examples) -> dict[str, Any]:
    """The same ranker where items were shown, which it knows nothing of when it serves."""
    config = work.config
    predicted = predictions(config, examples, ranker, TEST, work.group, as_shown=True)
    rows, label = predicted[ranker.tasks[0]], f"{config.model.name}_as_shown"
    if work.group.leads:
        _write_predictions(rows, examples, work.files.predictions_of(label))
        if rows.lists is not None:
            _write_lists(rows.lists, examples, work.files.list_figures_of(label))
    summary = summarise_predictions(rows, replicates=config.evaluation.replicates)
    return {label: {**summary, "seconds": {}}}


def _measure_orders(work: Work, examples: Examples, shown: ShownLists) -> dict[str, Any]:
    """The orders of lists that cost nothing to learn, beside a ranker."""
    summaries = {}
    for name, scores in shown.orders().items():
        lists = shown.judge(scores)
        _write_lists(lists, examples, work.files.list_figures_of(name))
        replicates = work.config.evaluation.replicates
        summaries[name] = {**summarise_lists(lists, replicates=replicates), "seconds": {}}
    return summaries


def _write_predictions(rows: Predictions, examples: Examples, path: Path) -> None:
    schema = examples.schema
    users = examples.vocabulary(schema.user).decode(rows.users)
    items = examples.vocabulary(schema.item).decode(rows.items)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(rows.table(users, items), path)


def _write_lists(lists: ListFigures, examples: Examples, path: Path) -> None:
    schema = examples.schema
    assert schema.list is not None
    ids = examples.vocabulary(schema.list).decode(lists.lists)
    users = examples.vocabulary(schema.user).decode(lists.users)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(lists.table(ids, users), path)


def _noting(bench: Bench) -> Callable[[str], None]:
    return bench.watch.note if bench.watch is not None else lambda text: None


def _unused(name: str, taken: dict[str, Any]) -> str:
    """The name, numbered from the second on: a retriever may be measured with several options."""
    numbered = (f"{name}_{number}" for number in range(2, len(taken) + 3))
    return next(free for free in (name, *numbered) if free not in taken)
