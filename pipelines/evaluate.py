"""Checkpoint -> figures: the model beside its baselines, by full ranking of the test events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from rich import box
from rich.progress import track
from rich.table import Table

from feature_store.durable import ROW_GROUP_ROWS, write_parquet, write_tables
from feature_store.errors import ConfigError
from feature_store.protocols import TEST
from pipelines.prepare import prepare
from pipelines.progress import console
from pipelines.train import (
    build_model,
    make_evaluator,
    predictions,
    request_reader,
    seed_all,
    trained_folder,
)
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.evaluation.evaluator import Result
from recsys.evaluation.given_lists import GivenLists
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.predictions import FIGURES, summarise_predictions
from recsys.evaluation.summary import summarise
from recsys.evaluation.user_slices import user_slices
from recsys.figure import Figure, cut_offs, first_cut
from recsys.model import Model
from recsys.options import ModelConfig
from recsys.rankers.base import Ranker
from recsys.report.report import write_report
from recsys.retrievers import build
from recsys.retrievers.base import Retriever
from recsys.retrievers.popularity import PopularityConfig, RecentPopularityConfig
from recsys.runs.folder import METRICS_FILE, SECONDS_FILE, Run, measured
from recsys.tracking import Tracker
from recsys.training.checkpoint import load, load_unsharded
from recsys.training.sharding import shard

COLD = ("users", "items")  # slices of those with hardly any events, in every table


def trained_model(config: RunConfig, group: Group | None = None) -> tuple[Model, Examples]:
    """The run's model with its best weights, or fitted, and the examples it knows.

    With a group its large tables are split over it; otherwise this process holds all of them.
    Raises DataError when it was not trained.
    """
    examples = prepare(config, refit=config.trainer.refit)
    model = build_model(config, examples)
    if not model.learns_by_gradient:
        model.fit(examples.interactions(), examples)
    elif group is None:
        load_unsharded(trained_folder(config), model)
    else:
        sharded = shard(model, group)
        load(trained_folder(config), sharded, None, group, random=False)
    return model.eval(), examples


def evaluate(config: RunConfig, group: Group, tracker: Tracker) -> dict[str, Any]:
    """Measure the model, and a retriever's baselines, on the test events.

    Writes `metrics.json` and `per_user/<retriever>.parquet` or `per_row/<ranker>.parquet`;
    returns what `metrics.json` holds.
    """
    found = _evaluate_ranker if config.ranker is not None else _evaluate_retrievers
    results = found(config, group)
    if group.leads:
        _write(config, results, tracker)
    group.barrier()
    return results


def _evaluate_retrievers(config: RunConfig, group: Group) -> dict[str, Any]:
    started = time.perf_counter()
    model, examples = trained_model(config, group)
    learnt = model.learns_by_gradient
    fit = _training_seconds(config) if learnt else time.perf_counter() - started
    retriever = cast(Retriever, model)
    bench = _Bench(config, examples, group)
    name: str = config.model.name
    found: dict[str, Any] = {name: bench.measure(name, retriever, config.retriever, fit)}
    for label, part in retriever.parts().items():
        found[f"{name}_{label}"] = bench.measure(f"{name}_{label}", part, config.retriever, None)
    for baseline in _baselines(config, examples):
        name = _unused(baseline.name, found)
        started = time.perf_counter()
        seed_all(config.seed)
        fitted = build(baseline, config.embeddings, examples, config.seed)
        fitted.fit(examples.interactions(), examples)
        found[name] = bench.measure(name, fitted, baseline, time.perf_counter() - started)
    return _describe(config, examples, len(bench.evaluator.candidates)) | {"retrievers": found}


def _evaluate_ranker(config: RunConfig, group: Group) -> dict[str, Any]:
    model, examples = trained_model(config, group)
    ranker = cast(Ranker, model)
    name, started = config.model.name, time.perf_counter()
    found = predictions(config, examples, ranker.to(group.device), TEST, group)
    summary = summarise_predictions(found, replicates=config.evaluation.replicates)
    if group.leads:
        folder = config.folder / "per_row"
        folder.mkdir(parents=True, exist_ok=True)
        ids = [
            examples.vocabulary(key).decode(rows)
            for key, rows in (
                (examples.schema.user, found.users),
                (examples.schema.item, found.items),
            )
        ]
        write_parquet(found.table(*ids), folder / f"{name}.parquet")
    seconds = {"evaluate": round(time.perf_counter() - started, 3)}
    if (fit := _training_seconds(config)) is not None:
        seconds["fit"] = round(fit, 3)
    part = {**summary, "seconds": seconds, "config": config.model.model_dump(mode="json")}
    return _describe(config, examples, None) | {"rankers": {name: part}}


def evaluate_recommendations(
    config: RunConfig,
    lists_of: Path | pd.DataFrame,
    group: Group,
    tracker: Tracker,
    name: str | None = None,
) -> dict[str, Any]:
    """Measure lists that someone else made, under the run's protocol.

    The figures join those in the run's `metrics.json`, if there are any, as retriever `name` (by
    default the file's name). Raises DataError for what holds no such lists.
    """
    name = name or (lists_of.stem if isinstance(lists_of, Path) else "recommendations")
    examples = prepare(config, refit=config.trainer.refit)
    lists = GivenLists.read(lists_of, examples)
    bench = _Bench(config, examples, group)
    results = _describe(config, examples, len(bench.evaluator.candidates))
    known = _earlier(config, results["protocol_fingerprint"])
    if known.get(name, {}).get("config"):
        raise ConfigError(f"{config.folder} has a retriever {name!r}: choose another with --name")
    known[name] = bench.measure(name, lists, None, None)
    for note, count in lists.notes.items():
        console.print(f"{name}: {count:,} {note}", soft_wrap=True)
    results |= {"retrievers": known}
    if group.leads:
        _write(config, results, tracker)
    return results


class _Bench:
    """Measures one retriever after the other on the same requests."""

    def __init__(self, config: RunConfig, examples: Examples, group: Group) -> None:
        self.config, self.examples, self.group = config, examples, group
        options = config.evaluation
        facts = ItemFacts.of(
            examples,
            category=options.category,
            columns=options.slice_columns,
            power=options.popularity_power,
        ).to(group.device)
        self.evaluator = make_evaluator(config, examples, TEST, facts)

    def measure(
        self,
        name: str,
        retriever: Retriever,
        config: ModelConfig | None,
        fit_seconds: float | None,
    ) -> dict[str, Any]:
        """Rank the test, write the users' part, and return the retriever's part of the results."""
        options, group = self.config.evaluation, self.group
        reader = request_reader(self.config, self.examples, retriever, TEST, group)
        batches = track(
            reader, f"evaluate {name}", len(reader), console=console, transient=True,
            disable=not (group.leads and console.is_terminal),
        )  # fmt: skip
        started = time.perf_counter()
        result = self.evaluator.evaluate(retriever.to(group.device), batches, group)
        seconds = {"evaluate": time.perf_counter() - started}
        if fit_seconds is not None:
            seconds["fit"] = fit_seconds
        labels = user_slices(result, self.examples, options.slice_columns)
        if group.leads:
            folder = self.config.folder / "per_user"
            folder.mkdir(parents=True, exist_ok=True)
            write_tables(_per_user(result, labels, self.examples), folder / f"{name}.parquet")
        kept = retriever.state_dict().values()
        # a sharded table has no numel; its size is that of the whole
        numbers = sum(p.size().numel() for p in kept if p.is_floating_point())
        return {
            **summarise(result, k=options.slice_cut, replicates=options.replicates, labels=labels),
            **({"parameters": numbers} if numbers else {}),
            "seconds": {what: round(value, 3) for what, value in seconds.items()},
            "config": config.model_dump(mode="json") if config else {},
        }


def _training_seconds(config: RunConfig) -> float | None:
    """Seconds of all epochs, those of a refit included, without validation; None: not known."""
    path = config.folder / "training.json"
    if not path.exists():  # stopped between the last epoch and its record
        return None
    record = json.loads(path.read_text())
    epochs = record["history"] + record.get("refit_history", [])
    return sum(epoch["seconds"] for epoch in epochs)


def _baselines(config: RunConfig, examples: Examples) -> list[ModelConfig]:
    """The configured baselines but for the model itself."""
    found: tuple[ModelConfig, ...] | None = config.baselines
    if found is None:
        found = (PopularityConfig(), RecentPopularityConfig())
        found = found if examples.schema.clock == "time" else found[:1]
    return [baseline for baseline in found if baseline != config.model]


def _unused(name: str, known: dict[str, Any]) -> str:
    """The name, numbered from the second on: a retriever may be measured with several options."""
    numbered = (f"{name}_{number}" for number in range(2, len(known) + 3))
    return next(one for one in (name, *numbered) if one not in known)


def _describe(config: RunConfig, examples: Examples, candidates: int | None) -> dict[str, Any]:
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


def _earlier(config: RunConfig, fingerprint: str) -> dict[str, Any]:
    """What the run has measured under the same protocol."""
    if not (config.folder / METRICS_FILE).exists():
        return {}
    results = Run(config.folder).results
    if "rankers" in results:
        raise ConfigError(f"{config.folder} holds figures of a ranker, which makes no lists")
    if results["protocol_fingerprint"] != fingerprint:
        raise ConfigError(
            f"{config.folder} holds figures of another protocol ({results['protocol']}, "
            f"{results['protocol_fingerprint']}): choose another name with name=..."
        )
    return results["retrievers"]


def _write(config: RunConfig, results: dict[str, Any], tracker: Tracker) -> None:
    path = config.folder / METRICS_FILE
    kind, models = measured(results)
    seconds = {name: found["seconds"] for name, found in models.items()}
    (config.folder / SECONDS_FILE).write_text(json.dumps(seconds, indent=2) + "\n")
    timeless = {
        name: {key: value for key, value in found.items() if key != "seconds"}
        for name, found in models.items()
    }
    written = results | {kind: timeless}
    path.write_text(json.dumps(written, indent=2, allow_nan=False) + "\n")
    # the protocol's name is part of every figure's: one must not be read for another
    protocol = results["protocol"]
    for name, found in models.items():
        whose = "" if name == config.model.name else f"{name}/"
        figures = {f"test/{protocol}/{whose}{m}": v for m, v in found["metrics"].items()}
        tracker.log_metrics({name: v for name, v in figures.items() if v is not None})
    tracker.log_files(path, config.folder / ("per_user" if kind == "retrievers" else "per_row"))


def report(config: RunConfig, tracker: Tracker) -> Path:
    """Write the run's HTML report and its pictures, and keep them as artifacts."""
    path = write_report(config.folder)
    tracker.log_files(path, config.folder / "plots")
    return path


def metrics_table(results: dict[str, Any]) -> Table:
    """The figures people look at first, the model on top."""
    kind, models = measured(results)
    title = f"{results['name']}, test, {results['protocol']} ({results['protocol_fingerprint']})"
    if kind == "rankers":
        names = list(FIGURES[:-1])  # all six do not fit 80 columns
    else:
        names = _first_figures(next(iter(models.values()))["metrics"])
        title += f", {results['candidates']:,} candidates"
    table = Table(title=title, box=box.SIMPLE, collapse_padding=True)
    table.add_column(kind.removesuffix("s"), no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    cold = COLD if kind == "retrievers" else ()
    for slicing in cold:
        table.add_column(f"cold\n{slicing}", justify="right", no_wrap=True)
    for name, found in models.items():
        figures = [_figure(found, one) for one in names]
        table.add_row(name, *figures, *(_cold(found, slicing) for slicing in cold))
    if cold:
        table.caption = f"cold: {names[0]} of users, and of items, with hardly any events"
    return table


def _first_figures(metrics: dict[str, Any]) -> list[str]:
    k = first_cut(cut_offs(map(Figure.parse, metrics)))
    capture = Figure("GMVCapture", k)
    fourth = capture if str(capture) in metrics else Figure("HR", k)  # not both fit 80 columns
    return [str(figure) for figure in (Figure("Recall", k), Figure("NDCG", k), fourth)]


def _cold(found: dict[str, Any], slicing: str) -> str:
    """The first figure of cold users or items; "-" where there are none."""
    part = found["slices"].get(slicing, {}).get("cold")
    return "-" if part is None else f"{next(iter(part['metrics'].values())):.4f}"


def _figure(found: dict[str, Any], name: str) -> str:
    value = found["metrics"].get(name)
    if value is None:
        return "-"
    low, high = found["ci95"][name]
    shown = Figure.parse(name).name in ("NDCG", "AUC")
    interval = f" ±{(high - low) / 2:.4f}" if shown else ""
    return f"{value:.4f}{interval}"


def _per_user(
    result: Result, labels: dict[str, np.ndarray], examples: Examples
) -> Iterator[pa.Table]:
    """What every user got, with raw ids and the slices the user is in, some users at a time."""
    schema, first = examples.schema, 0
    users, items = examples.vocabulary(schema.user), examples.vocabulary(schema.item)
    for part in result.parts(ROW_GROUP_ROWS):
        table = part.per_user
        lists = table.column("recommended").combine_chunks()
        raw = {
            "user": users.decode(table.column("user").to_numpy()),
            "recommended": pa.ListArray.from_arrays(
                lists.offsets, items.decode(lists.values.to_numpy())
            ),
        }
        for name, column in raw.items():
            table = table.set_column(table.column_names.index(name), name, column)
        for name, of_user in labels.items():
            of_part = of_user[first : first + table.num_rows].tolist()
            table = table.append_column(f"slice:{name}", pa.array(of_part, pa.string()))
        first += table.num_rows
        yield table
