"""Checkpoint -> verified bundle."""

from __future__ import annotations

from feature_store.durable import replace_link
from feature_store.progress import stage
from pipelines.export_notes import promises, tell_alias_stays, tell_promise, tell_quantisation
from pipelines.tracked_page import tracked
from recsys.config import RunConfig
from recsys.export.bundle import publish_bundle
from recsys.report.report import write_report
from recsys.runs.exports import exports_of
from recsys.runs.finished import Run
from recsys.runs.log import open_log
from recsys.runs.same_training import check_same_training
from recsys.runs.steps import BUNDLE, FIGURES
from recsys.runs.verdict import earns_alias
from recsys.runs.work import Work, working_on
from recsys.serving.releases import CURRENT, Releases
from recsys.serving.word_reasons import reader_of_words
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
    run, parts = Run(config.folder), exports_of(config)
    with stage("write and verify the bundle"):
        catalogue = open_log(config)[1]
        releases = Releases(run.files.bundles)
        own_ids, keep = config.cascade is not None, config.export.keep
        bundle = publish_bundle(releases, parts, catalogue, own_ids=own_ids, keep=keep)
        replace_link(run.bundle, f"{run.files.bundles.name}/{CURRENT}")
    for name, record in bundle.manifest.parts.items():
        tell_quantisation(record.quantisation)
        tell_promise(name, record)
    BUNDLE.mark_done(config)
    if promises(bundle.manifest) or reader_of_words(bundle):  # evaluation could not know yet
        write_report(run.folder)
    moves = force or earns_alias(run.results)
    if not moves:
        tell_alias_stays(config)
    tracker.register_bundle(run.bundle, config.name, config.tracking.alias if moves else None)
