"""Checkpoint -> figures: the model beside its baselines, by full ranking of the test events."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from rich import box
from rich.progress import track
from rich.table import Table

from feature_store.errors import DataError
from feature_store.event_log import write_parquet
from pipelines.prepare import prepare
from pipelines.progress import console
from pipelines.train import make_evaluator, request_reader, seed_all, trained_folder
from recsys.config import RunConfig
from recsys.evaluation.evaluator import Result
from recsys.examples import Examples
from recsys.retrievers import BY_NAME, build
from recsys.retrievers.base import FittedRetriever, VectorRetriever
from recsys.runs import METRICS_FILE
from recsys.tracking import Tracker
from recsys.training.checkpoint import load_unsharded
from recsys.training.distributed import Group


def trained_retriever(config: RunConfig) -> tuple[VectorRetriever, Examples]:
    """The run's retriever with its best weights, or fitted, and the examples it knows.

    Raises DataError when it was not trained.
    """
    examples = prepare(config, refit=config.trainer.refit)
    seed_all(config.seed)
    retriever = build(config.retriever, config.embeddings, examples, config.seed)
    if isinstance(retriever, FittedRetriever):
        retriever.fit(examples.interactions(), examples)
    else:
        trained = trained_folder(config)
        if not trained.exists():
            raise DataError(f"{trained} is absent: run `recsys train {config.folder}` first")
        load_unsharded(trained, retriever)
    return retriever.eval(), examples


def evaluate(config: RunConfig, group: Group, tracker: Tracker) -> dict[str, Any]:
    """Measure the model and the baselines on the test events.

    Writes `metrics.json` and `per_user/<retriever>.parquet`; returns what `metrics.json` holds.
    """
    retriever, examples = trained_retriever(config)
    measured: dict[str, VectorRetriever] = {config.retriever.name: retriever}
    for name in config.evaluation.baselines:
        if name not in measured:
            baseline = build(BY_NAME[name](), config.embeddings, examples, config.seed)
            assert isinstance(baseline, FittedRetriever)
            baseline.fit(examples.interactions(), examples)
            measured[name] = baseline
    evaluator = make_evaluator(config, examples)
    found: dict[str, Any] = {}
    for name, one in measured.items():
        reader = request_reader(config, examples, one, "test", group)
        batches = track(
            reader, f"evaluate {name}", len(reader), console=console, transient=True,
            disable=not (group.leads and console.is_terminal),
        )  # fmt: skip
        result = evaluator.evaluate(one.to(group.device), batches, group)
        found[name] = {
            "metrics": result.metrics,
            "ci95": result.ci95,
            "users": result.per_user.num_rows,
            "without_history": result.without_history,
            "without_targets": result.without_targets,
        }
        if group.leads:
            folder = config.folder / "per_user"
            folder.mkdir(parents=True, exist_ok=True)
            write_parquet(_with_raw_ids(result, examples), folder / f"{name}.parquet")
    summary = examples.summary
    results = {
        "name": config.name,
        "protocol": summary.protocol,
        "protocol_fingerprint": summary.fingerprint,
        "seed": config.seed,
        "candidates": len(evaluator.candidates),
        "events": summary.events,
        "retrievers": found,
    }
    if group.leads:
        path = config.folder / METRICS_FILE
        path.write_text(json.dumps(results, indent=2) + "\n")
        tracker.log_metrics(
            {f"test/{metric}": v for metric, v in found[config.retriever.name]["metrics"].items()}
        )
        for name in config.evaluation.baselines:
            tracker.log_metrics({f"test_{name}/{m}": v for m, v in found[name]["metrics"].items()})
        tracker.log_files(path, config.folder / "per_user")
    group.barrier()
    return results


def metrics_table(results: dict[str, Any]) -> Table:
    """The figures people look at first, the model on top."""
    first = next(iter(results["retrievers"].values()))["metrics"]
    ks = sorted({int(name.split("@")[1]) for name in first})
    k = 10 if 10 in ks else ks[-1]
    names = [f"{m}@{k}" for m in ("Recall", "HR", "NDCG", "Coverage")]
    table = Table(
        title=f"{results['name']}, test, {results['protocol']} "
        f"({results['protocol_fingerprint']}), {results['candidates']:,} candidates",
        box=box.SIMPLE,
    )
    table.add_column("retriever", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in results["retrievers"].items():
        table.add_row(name, *(_figure(found, one) for one in names))
    return table


def _figure(found: dict[str, Any], name: str) -> str:
    interval = f" ±{found['ci95'][name]:.4f}" if name.startswith("NDCG") else ""
    return f"{found['metrics'][name]:.4f}{interval}"


def _with_raw_ids(result: Result, examples: Examples) -> pa.Table:
    schema, table = examples.schema, result.per_user
    users = examples.vocabulary(schema.user).decode(table.column("user").to_numpy())
    lists = table.column("recommended").combine_chunks()
    items = examples.vocabulary(schema.item).decode(lists.values.to_numpy())
    table = table.set_column(0, "user", users)
    place = table.column_names.index("recommended")
    return table.set_column(place, "recommended", pa.ListArray.from_arrays(lists.offsets, items))
