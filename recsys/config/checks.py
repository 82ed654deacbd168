"""What one section of a config asks of another."""

from __future__ import annotations

from feature_store.errors import ConfigError
from recsys.config.run_config import DATABASE, TAKEN, RunConfig
from recsys.embeddings.options import QuantisationConfig
from recsys.rankers import RANKERS
from recsys.retrievers import RETRIEVERS, retriever_class
from recsys.serving.index.options import ExactConfig, PrefixConfig


def check(config: RunConfig, where: str) -> None:
    """Raises ConfigError where sections do not go together."""
    _check_folders(config, where)
    models = (config.retriever, config.ranker, config.cascade)
    if sum(model is not None for model in models) != 1:
        raise ConfigError(
            f"{where}: give either [retriever], one of {', '.join(RETRIEVERS)}, or [ranker], "
            f"one of {', '.join(RANKERS)}, or [cascade], whose parts are finished runs"
        )
    if config.ranker is None and config.calibration.kind != "none":
        raise ConfigError(
            f"{where}: calibration.kind: only rankers predict probabilities (a cascade's are "
            "calibrated by their own runs): leave it out"
        )
    if config.ranker is None and config.split.candidates == "shown":
        raise ConfigError(
            f"{where}: split.candidates: lists as they were shown are ordered by a [ranker]; a "
            "retriever ranks what is 'known', the whole 'catalogue' or what is 'new'"
        )
    if config.compatible_with is not None and (
        config.retriever is None or not retriever_class(config.model.name).learns_by_gradient
    ):
        raise ConfigError(
            f"{where}: compatible_with: a [retriever] that learns by gradient can be brought into "
            f"the space of a bundle, and {config.model.name} is none: leave the section out"
        )
    _check_phases(config, where)
    if config.ranker is not None:
        _check_ranker(config, where)
    elif config.cascade is not None:
        _check_cascade(config, where)
    else:
        _check_retriever(config, where)


def _check_phases(config: RunConfig, where: str) -> None:
    names = [phase.name for phase in config.trainer.phases]
    if not names:
        return
    known: tuple[str, ...] = getattr(config.model_class, "phases", ())
    for place, name in enumerate(names):
        if name not in known:
            raise ConfigError(
                f"{where}: trainer.phases.{place}.name: {config.model.name} has no phase {name!r}; "
                f"it has: {', '.join(known) or 'none, since it is not trained'}"
            )
        if name in names[:place]:
            raise ConfigError(f"{where}: trainer.phases.{place}.name: {name!r} comes twice")


def _check_folders(config: RunConfig, where: str) -> None:
    """Whoever removes a run, or a log that is made anew, must not remove anything else."""
    name = config.name.casefold()
    if name in TAKEN or name.startswith(DATABASE):
        raise ConfigError(
            f"{where}: name: {config.name!r} is what lies beside the runs in {config.output}: "
            f"choose another than {', '.join(TAKEN)}"
        )
    if config.store is not None:
        run, log = config.folder.absolute(), config.store.absolute()
        if run.is_relative_to(log) or log.is_relative_to(run):
            raise ConfigError(
                f"{where}: store: the event log in {log} and the run in {run} lie within each "
                "other: choose another folder for one of them"
            )


def _check_ranker(config: RunConfig, where: str) -> None:
    from recsys.evaluation import predictions, shown_lists

    if config.baselines:
        raise ConfigError(f"{where}: baselines are retrievers: a ranker has none")
    of_lists = shown_lists.FIGURES if config.split.candidates == "shown" else ()
    figures = (*of_lists, *predictions.FIGURES)
    if config.metric not in figures:
        hint = ""
        if config.metric in shown_lists.FIGURES:
            hint = ", or split.candidates = 'shown', where the log tells lists"
        raise ConfigError(
            f"{where}: trainer.metric: {config.metric!r} is not measured of rankers; "
            f"choose one of: {', '.join(figures)}{hint}"
        )


def _check_cascade(config: RunConfig, where: str) -> None:
    _check_baselines(config, where)
    asked = {"index": config.export.index, "quantisation": config.export.quantisation}
    for section, kind in (("index", ExactConfig), ("quantisation", QuantisationConfig)):
        given, usual = asked[section], kind()
        if given != usual:
            fields = type(given).model_fields
            said = [name for name in fields if getattr(given, name) != getattr(usual, name, None)]
            raise ConfigError(
                f"{where}: export.{section} sets {', '.join(said)}: a cascade's parts search "
                "exactly, on tables of float32: leave that out"
            )
    _check_metric(config, where, chooses_epochs=False)


def _check_baselines(config: RunConfig, where: str) -> None:
    for place, baseline in enumerate(config.baselines or ()):
        if retriever_class(baseline.name).learns_by_gradient:
            fitted = [n for n in RETRIEVERS if not retriever_class(n).learns_by_gradient]
            raise ConfigError(
                f"{where}: baselines.{place}.name: {baseline.name!r} learns by gradient: make it "
                f"the retriever of a run of its own; known: {', '.join(fitted)}"
            )


def _check_retriever(config: RunConfig, where: str) -> None:
    from recsys.retrievers.fitted import ScoringRetriever  # needs torch, and options do not

    _check_baselines(config, where)
    chosen = retriever_class(config.model.name)
    index = config.export.index
    if issubclass(chosen, ScoringRetriever) and not isinstance(index, ExactConfig):
        raise ConfigError(
            f"{where}: export.index.kind: {config.model.name} gives every item a score and has "
            f"no vectors that {index.kind!r} could search: choose 'exact'"
        )
    if getattr(config.model, "freeze_backbone", False) and config.trainer.start_from is None:
        raise ConfigError(
            f"{where}: retriever.freeze_backbone: the backbone would never learn anything: set "
            "trainer.start_from to a run of it"
        )
    nested = getattr(config.model, "matryoshka", ())
    if isinstance(index, PrefixConfig) and index.prefix not in nested:
        raise ConfigError(
            f"{where}: export.index.prefix: {index.prefix} is not a width that "
            f"retriever.matryoshka trains; choose one of: {', '.join(map(str, nested)) or 'none'}"
        )
    _check_metric(config, where, chooses_epochs=chosen.learns_by_gradient)


def _check_metric(config: RunConfig, where: str, *, chooses_epochs: bool) -> None:
    metric, measured = config.metric, config.evaluation.figures
    if metric not in measured and (config.trainer.metric or chooses_epochs):
        raise ConfigError(
            f"{where}: trainer.metric: {metric!r} is not measured with these evaluation.ks; "
            f"choose one of: {', '.join(measured)}"
        )
