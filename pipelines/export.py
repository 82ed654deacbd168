"""Checkpoint -> verified bundle."""

from __future__ import annotations

from pipelines.evaluate import trained_retriever
from pipelines.prepare import open_log
from recsys.config import RunConfig
from recsys.runs import Run
from recsys.serving.export import write_bundle
from recsys.serving.recommender import Recommender
from recsys.tracking import Tracker


def export(config: RunConfig, tracker: Tracker) -> Recommender:
    """Export the run's retriever and register the bundle; returns it, opened and verified.

    Raises DataError when the exported tower does not answer as the retriever does.
    """
    retriever, examples = trained_retriever(config)
    _, catalogue = open_log(config)
    run = Run(config.folder)
    recommender = write_bundle(
        run.bundle,
        retriever.cpu(),
        examples,
        catalogue,
        examples.candidates(config.split.candidates),
        index=config.export.index,
        golden=config.export.golden,
        about={
            "run": config.name,
            "retriever": config.retriever.name,
            "config": config.retriever.model_dump(mode="json"),
            "run_fingerprint": config.fingerprint,
            "protocol": examples.summary.protocol,
            "protocol_fingerprint": examples.summary.fingerprint,
            "metrics": run.results["retrievers"][config.retriever.name]["metrics"],
        },
    )
    tracker.register_bundle(run.bundle, config.name, config.tracking.alias)
    return recommender
