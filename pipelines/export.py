"""Checkpoint -> verified bundle."""

from __future__ import annotations

from typing import cast

from pipelines.progress import console
from recsys.config import RunConfig
from recsys.export.bundle import PartExport, write_bundle
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.rankers.base import Ranker
from recsys.retrievers.base import VectorRetriever
from recsys.runs.finished import Run, measured
from recsys.runs.fit import trained_model
from recsys.runs.prepare import open_log
from recsys.runs.same_training import check_same_training
from recsys.runs.steps import BUNDLE, FIGURES
from recsys.runs.work import Work, working_on
from recsys.serving.manifest import About, Quantisation
from recsys.tracking import Tracker


def export(config: RunConfig) -> None:
    """Write and verify the bundle of a trained and evaluated run.

    Raises DataError when it was not evaluated since it was trained, ConfigError when the folder
    holds a training of another config or another program holds it.
    """
    check_same_training(config)
    with working_on(config, "cpu") as work:
        # before anything is written: no bundle has the figures of other weights
        FIGURES.require(config, "recsys evaluate")
        with work.tracked() as tracker:
            export_in(work, tracker)


def export_in(work: Work, tracker: Tracker) -> None:
    """Export the model of a run that is held already, and register the bundle.

    Raises DataError when the exported program does not answer as the model does.
    """
    config = work.config
    model, examples = trained_model(config)
    run, about, options = Run(config.folder), _about(config), config.export
    part: PartExport
    if config.ranker is not None:
        part = RankerExport(
            cast(Ranker, model.cpu()),
            examples,
            golden=options.golden,
            about=about,
            quantisation=options.quantisation,
        )
    else:
        part = GeneratorExport(
            cast(VectorRetriever, model.cpu()),
            examples,
            examples.candidates(config.split.candidates),
            index=options.index,
            golden=options.golden,
            about=about,
            quantisation=options.quantisation,
        )
    bundle = write_bundle(run.bundle, {part.noun: part}, open_log(config)[1])
    for record in bundle.manifest.parts.values():
        _tell(record.quantisation)
    BUNDLE.mark_done(config)
    tracker.register_bundle(run.bundle, config.name, config.tracking.alias)


def _about(config: RunConfig) -> About:
    _, models = measured(Run(config.folder).results)
    return About(
        run=config.name,
        model=config.model.name,
        config=config.model.model_dump(mode="json"),
        run_fingerprint=config.fingerprint,
        metrics=models[config.model.name]["metrics"],
    )


def _tell(quantisation: Quantisation | None) -> None:
    """Say what became of tables that were to be quantised."""
    if quantisation is None:
        return
    for name, table in quantisation.tables.items():
        why = f" ({table.reason})" if table.reason else ""
        console.print(
            f"table {name}: {table.dtype}, {table.bytes / 1e6:.2f} MB of "
            f"{table.fp32_bytes / 1e6:.2f}, relative error {table.relative_error:.4f}{why}",
            soft_wrap=True,
        )
    console.print(
        f"{quantisation.metric} {quantisation.quantised:.4f}, in float32 {quantisation.fp32:.4f}"
    )
