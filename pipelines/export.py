"""Checkpoint -> verified bundle."""

from __future__ import annotations

from typing import cast

from feature_store.progress import stage
from pipelines.export_notes import tell_alias_stays, tell_quantisation
from pipelines.tracked_page import tracked
from recsys.config import RunConfig
from recsys.export.bundle import PartExport, write_bundle
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.rankers.base import Ranker
from recsys.retrievers.base import VectorRetriever
from recsys.runs.finished import Run, measured
from recsys.runs.fit import trained_model
from recsys.runs.folder import RunFolder
from recsys.runs.prepare import open_log
from recsys.runs.same_training import check_same_training
from recsys.runs.steps import BUNDLE, FIGURES
from recsys.runs.verdict import earns_alias
from recsys.runs.weights import training_of
from recsys.runs.work import Work, working_on
from recsys.serving.manifest import About
from recsys.tracking import Tracker


def export(config: RunConfig, *, force: bool = False) -> None:
    """Write and verify the bundle of a trained and evaluated run.

    With `force` a model that does not beat its baselines gets the tracker's alias, too.

    Raises DataError when it was not evaluated since it was trained, ConfigError when the folder
    holds a training of another config or another program holds it.
    """
    check_same_training(config)
    with working_on(config, "cpu") as work:
        # before anything is written: no bundle has the figures of other weights
        FIGURES.require(config, "recsys evaluate")
        with tracked(work) as tracker:
            export_in(work, tracker, force=force)


def export_in(work: Work, tracker: Tracker, *, force: bool = False) -> None:
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
    with stage("write and verify the bundle"):
        bundle = write_bundle(run.bundle, {part.noun: part}, open_log(config)[1])
    for record in bundle.manifest.parts.values():
        tell_quantisation(record.quantisation)
    BUNDLE.mark_done(config)
    moves = force or earns_alias(run.results)
    if not moves:
        tell_alias_stays(config)
    tracker.register_bundle(run.bundle, config.name, config.tracking.alias if moves else None)


def _about(config: RunConfig) -> About:
    _, models = measured(Run(config.folder).results)
    return About(
        run=config.name,
        model=config.model.name,
        config=config.model.model_dump(mode="json"),
        run_fingerprint=config.fingerprint,
        metrics=models[config.model.name]["metrics"],
        training=training_of(RunFolder(config.folder)),
    )
