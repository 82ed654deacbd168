"""What a search for options tries, and the configs that it makes of it."""

from __future__ import annotations

from typing import Any

from feature_store.errors import ConfigError
from recsys.config import RunConfig, parse_config
from recsys.config.inline import inline
from recsys.runs.folder import MAIN_PHASE, RunFolder
from recsys.training.options import PhaseConfig
from recsys.tuning.options import Domain

_RATE = "trainer.optimizer.learning_rate"
_NOT_TUNED = ("retriever.name", "trainer.metric")  # what is tuned, and what is compared


def search_space(config: RunConfig) -> dict[str, Domain]:
    """What is tried, by option: `[tune.space]`, or what the retriever's config proposes.

    Every bound and choice is put into the config once. Raises ConfigError, naming the option
    that is unknown, may not be tuned, or does not allow a value.
    """
    assert config.retriever is not None
    kind, name = type(config.retriever), config.retriever.name
    proposed = kind.search_space
    space = config.tune.space or {
        f"retriever.{key}": Domain.model_validate(domain) for key, domain in proposed.items()
    }
    options = [option for option in kind.model_fields if option != "name"]
    if not space and not options:
        raise ConfigError(f"retriever {name!r} has no options: there is nothing to tune")
    if not space:
        raise ConfigError(
            f"retriever {name!r} proposes no search space: name options under [tune.space], such "
            f'as "retriever.{options[0]}" = {{low = 1, high = 10}}; known: {", ".join(options)}'
        )
    sections = ["retriever"]
    if config.model_class.learns_by_gradient:
        sections += ["embeddings", "reader", "trainer"]
    for key, domain in space.items():
        if key in _NOT_TUNED or (
            key.split(".")[0] in RunConfig.model_fields and key.split(".")[0] not in sections
        ):
            raise ConfigError(
                f"tune.space: {key} cannot be tuned for {name!r}; what can are the options of: "
                f"{', '.join(sections)}"
            )
        for value in domain.extremes:
            with_values(config, {key: value}, where="tune.space")
        _check_phases(config, key)
    return space


def _check_phases(config: RunConfig, key: str) -> None:
    """Refuse an option of training that no phase takes from there."""
    option = {_RATE: "learning_rate"}.get(key, key.removeprefix("trainer."))
    phases = config.trainer.phases
    if not phases or option not in type(phases[0]).model_fields or not key.startswith("trainer."):
        return
    if all(getattr(phase, option) is not None for phase in phases):
        raise ConfigError(
            f"tune.space: {key} changes nothing, since each of trainer.phases has its own "
            f"{option}: leave it out of a phase, or search trainer.phases, whose choices are whole "
            "lists of phases"
        )


def with_values(config: RunConfig, values: dict[str, Any], where: str = "config") -> RunConfig:
    """The config with some options set, by dotted name. Raises ConfigError as `parse_config`."""
    overrides = [f"{key}={inline(value)}" for key, value in values.items()]
    return parse_config(config.to_dict(), overrides, where=where)


def judged_by(config: RunConfig) -> RunConfig:
    """The config whose best epoch is chosen by the figure that trials are compared by.

    Raises ConfigError for a config that cannot be tuned, or a figure that is not measured.
    """
    if config.retriever is None:
        kind = "ranker" if config.ranker is not None else "cascade"
        raise ConfigError(
            f"this config has a {kind}, and recsys tune searches options of retrievers"
        )
    *before, last = config.trainer.phases or (PhaseConfig(name=MAIN_PHASE),)
    own = last.metric
    metric = config.tune.metric or own or config.metric
    if metric not in config.evaluation.figures:
        raise ConfigError(
            f"tune.metric: {metric!r} is not measured with these evaluation settings; "
            f"choose one of: {', '.join(config.evaluation.figures)}"
        )
    values: dict[str, Any] = {"trainer.metric": metric}
    if own is not None:  # the last phase's figure counts, and those before keep theirs
        theirs = [{"metric": config.metric} | _set(phase) for phase in before]
        values["trainer.phases"] = [*theirs, _set(last) | {"metric": metric}]
    return with_values(config, values)


def _set(phase: PhaseConfig) -> dict[str, Any]:
    return phase.model_dump(exclude_none=True)


def longest(config: RunConfig, space: dict[str, Domain]) -> RunConfig:
    """The config of the longest history: its examples serve all trials, whose readers cut."""
    lengths = space.get("retriever.max_length")
    if lengths is None:
        return config
    return with_values(config, {"retriever.max_length": max(lengths.extremes)})


def for_retriever(
    config: RunConfig, name: str, overrides: list[str] | None = None
) -> tuple[RunConfig, RunFolder]:
    """Another retriever over the data and split of a config, and the folder of its search.

    The retriever has its defaults, changed by `overrides` alone, its own search space, and no
    phases of another's training. The run that its tuned config describes is called
    CONFIG_RETRIEVER. Raises ConfigError.
    """
    tree = config.to_dict() | {"retriever": {"name": name}}
    tree.pop("ranker", None)
    tree.pop("cascade", None)
    tree["tune"].pop("space", None)
    if name != config.model.name:
        tree["trainer"].pop("phases", None)
    swapped = parse_config(tree, overrides)
    renamed = swapped.model_copy(update={"name": f"{swapped.name}_{name}"})
    return renamed, RunFolder(swapped.folder).search_of(name)
