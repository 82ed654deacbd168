"""What the bundle of a run holds."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from recsys.compatible.mixed import Calibration, renewed_first
from recsys.compatible.retriever import Compatible
from recsys.compatible.underway import Underway
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.export.bundle import PartExport
from recsys.export.cascade import CascadeExport
from recsys.export.generator import GeneratorExport
from recsys.export.ranker import RankerExport
from recsys.model import Model
from recsys.rankers.base import Ranker
from recsys.retrievers.base import VectorRetriever
from recsys.runs.assemble import Part, assemble, open_parts
from recsys.runs.calibration import calibrated
from recsys.runs.finished import Run, measured
from recsys.runs.fit import trained_model, whole_model
from recsys.runs.folder import RunFolder
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare
from recsys.runs.weights import training_of
from recsys.serving.generator import REEMBEDDED
from recsys.serving.manifest import About


def exports_of(config: RunConfig) -> dict[str, PartExport]:
    """The parts of a run's bundle by name: its model; of a cascade, that and a part a stage.

    Raises DataError as `trained_model`.
    """
    if config.cascade is not None:
        return _cascade(config)
    model, examples = trained_model(config)
    if config.ranker is not None:
        model = calibrated(config, model, examples)
        part: PartExport = _ranker(config, config, model, examples)
    else:
        generator = _generator(config, config, model, examples, examples)
        if config.compatible_with is not None:
            return _upgraded(generator, cast(Compatible, model))
        part = generator
    return {part.noun: part}


def _upgraded(generator: GeneratorExport, model: Compatible) -> dict[str, PartExport]:
    """The new model over the index that is there, and over items that were all re-embedded."""
    assert model.origin is not None
    lineage = model.origin.lineage
    served = replace(generator, space=model.space, lineage=lineage)
    reembedded = replace(
        generator, retriever=model.reembedded, lineage=lineage, old_space=model.in_old_space
    )
    return {served.noun: served, REEMBEDDED: reembedded}


def underway_of(config: RunConfig, share: float, calibration: Calibration) -> dict[str, PartExport]:
    """The part of a bundle over an index of which a `share` of the items is re-embedded: those that
    `recsys.compatible.matrix` takes. Raises DataError as `trained_model`."""
    model, examples = trained_model(config)
    whole = cast(Compatible, model)
    assert whole.origin is not None
    generator = _generator(config, config, whole, examples, examples)
    candidates = generator.candidates
    renewed = torch.zeros(examples.num_items, dtype=torch.bool)
    renewed[candidates] = renewed_first(len(candidates), share)
    underway = Underway(whole, renewed, calibration)
    part = replace(generator, retriever=underway, lineage=whole.origin.lineage)
    return {part.noun: part}


def _cascade(config: RunConfig) -> dict[str, PartExport]:
    options = config.cascade
    assert options is not None
    examples = prepare(config, phases_of(config.trainer)[-1])
    opened = open_parts(config, examples, whole_model)
    exports: dict[str, PartExport] = {}
    tasks = {}
    for name, part in opened.items():
        stage = name.removeprefix("generators.")
        if stage in options.rankers:
            ranker = cast(Ranker, part.model)
            tasks[stage] = options.rankers[stage].task or ranker.tasks[0]
            exports[stage] = _ranker(config, part.config, ranker, part.examples)
        else:
            exports[_name(stage)] = _generator(config, *part, examples)
    cascade = CascadeExport(
        assemble(config, examples, _on_cpu(opened)),
        options,
        examples,
        examples.candidates(config.split.candidates),
        parts={stage: stage if stage in tasks else _name(stage) for stage in options.parts},
        tasks=tasks,
        golden=config.export.golden,
        about=_about(config),
        fallback=config.export.fallback,
    )
    return {cascade.noun: cascade, **exports}


def _name(stage: str) -> str:
    return f"generator_{stage}"


def _on_cpu(parts: dict[str, Part]) -> dict[str, Part]:
    return {name: part._replace(model=part.model.cpu()) for name, part in parts.items()}


def _ranker(run: RunConfig, config: RunConfig, model: Model, examples: Examples) -> RankerExport:
    return RankerExport(
        cast(Ranker, model.cpu()),
        examples,
        golden=run.export.golden,
        about=_about(config),
        quantisation=run.export.quantisation,
    )


def _generator(
    run: RunConfig, config: RunConfig, model: Model, examples: Examples, own: Examples
) -> GeneratorExport:
    """A retriever over what its run may find, as that run's examples, `own`, know it."""
    candidates = own.candidates(run.split.candidates)
    if own is not examples:
        item = own.schema.item
        ids = own.vocabulary(item).decode(candidates.numpy())
        rows = torch.from_numpy(examples.vocabulary(item).encode(ids).copy())
        candidates = rows[rows != 0].sort().values
    return GeneratorExport(
        cast(VectorRetriever, model.cpu()),
        examples,
        candidates,
        index=run.export.index,
        golden=run.export.golden,
        about=_about(config),
        quantisation=run.export.quantisation,
        fallback=run.export.fallback,
    )


def _about(config: RunConfig) -> About:
    files = RunFolder(config.folder)
    metrics = {}
    if files.metrics.exists():
        _, models = measured(Run(config.folder).results)
        metrics = models.get(config.model.name, {}).get("metrics", {})
    return About(
        run=config.name,
        model=config.model.name,
        config=config.model.model_dump(mode="json"),
        run_fingerprint=config.fingerprint,
        metrics=metrics,
        training=training_of(files),
    )
