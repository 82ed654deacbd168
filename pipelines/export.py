"""Checkpoint -> verified bundle."""

from __future__ import annotations

from typing import Any, cast

from pipelines.progress import console
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.export.ranker import write_ranker_bundle
from recsys.export.retriever import write_bundle
from recsys.rankers.base import Ranker
from recsys.retrievers.base import VectorRetriever
from recsys.runs.finished import Run, measured
from recsys.runs.fit import trained_model
from recsys.runs.prepare import open_log
from recsys.runs.same_training import check_same_training
from recsys.runs.steps import BUNDLE
from recsys.runs.work import Work, working_on
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer
from recsys.tracking import Tracker


def export(config: RunConfig) -> None:
    """Write and verify the bundle of a trained and evaluated run.

    Raises ConfigError when the folder holds a training of another config or another program holds
    it.
    """
    check_same_training(config)
    with working_on(config, "cpu") as work, work.tracked() as tracker:
        export_in(work, tracker)


def export_in(work: Work, tracker: Tracker) -> None:
    """Export the model of a run that is held already, and register the bundle.

    Raises DataError when the exported program does not answer as the model does.
    """
    config = work.config
    model, examples = trained_model(config)
    run, about = Run(config.folder), _about(config, examples)
    bundle: Recommender | Scorer
    if config.ranker is not None:
        bundle = write_ranker_bundle(
            run.bundle,
            cast(Ranker, model.cpu()),
            examples,
            golden=config.export.golden,
            about=about,
            quantisation=config.export.quantisation,
        )
    else:
        bundle = write_bundle(
            run.bundle,
            cast(VectorRetriever, model.cpu()),
            examples,
            open_log(config)[1],
            examples.candidates(config.split.candidates),
            index=config.export.index,
            golden=config.export.golden,
            about=about,
            quantisation=config.export.quantisation,
        )
    _tell(bundle)
    BUNDLE.mark_done(config)
    tracker.register_bundle(run.bundle, config.name, config.tracking.alias)


def _about(config: RunConfig, examples: Examples) -> dict[str, Any]:
    kind, models = measured(Run(config.folder).results)
    return {
        "run": config.name,
        kind.removesuffix("s"): config.model.name,
        "config": config.model.model_dump(mode="json"),
        "run_fingerprint": config.fingerprint,
        "protocol": examples.summary.protocol,
        "protocol_fingerprint": examples.summary.fingerprint,
        "metrics": models[config.model.name]["metrics"],
    }


def _tell(bundle: Recommender | Scorer) -> None:
    """Say what became of tables that were to be quantised."""
    manifest = bundle.manifest if isinstance(bundle, Scorer) else bundle.bundle.manifest
    quantised = manifest["quantisation"]
    if quantised is None:
        return
    for name, table in quantised["tables"].items():
        why = f" ({table['reason']})" if table["reason"] else ""
        console.print(
            f"table {name}: {table['dtype']}, {table['bytes'] / 1e6:.2f} MB of "
            f"{table['fp32_bytes'] / 1e6:.2f}, relative error {table['relative_error']:.4f}{why}",
            soft_wrap=True,
        )
    figures = f"{quantised['quantised']:.4f}, in float32 {quantised['fp32']:.4f}"
    console.print(f"{quantised['metric']} {figures}")
