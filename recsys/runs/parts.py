"""The runs that a cascade is made of, and what their models ask of its examples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from feature_store.errors import ConfigError, DataError
from feature_store.examples import RowsOf
from recsys.config import RunConfig, load_config
from recsys.runs.folder import RunFolder


def part_config(name: str, run: Path) -> RunConfig:
    """The config of a run that the option `name` names. Raises DataError where it is none."""
    files = RunFolder(run)
    if not files.config.exists():
        raise DataError(
            f"{name}: {run} is not a run: it has no config.toml; `recsys run` its config first"
        )
    config = load_config(files.config)
    # it may have been moved, or be named from elsewhere
    return config.model_copy(update={"output": run.parent, "name": run.name})


def part_configs(config: RunConfig) -> dict[str, RunConfig]:
    """The configs of all parts of a cascade, by the names of their options.

    Raises DataError as `part_config`, and ConfigError where one is no retriever, or no ranker.
    """
    assert config.cascade is not None
    configs = {}
    for stage, part in config.cascade.parts.items():
        name = stage if stage in config.cascade.rankers else f"generators.{stage}"
        made = configs[name] = part_config(f"cascade.{name}", part.run)
        wanted = "ranker" if stage in config.cascade.rankers else "retriever"
        if getattr(made, wanted) is None:
            have = "cascade" if made.cascade is not None else made.model.name
            raise ConfigError(f"cascade.{name}: {part.run} is a run of a {have}, not of a {wanted}")
    return configs


def rows_of(config: RunConfig) -> RowsOf:
    """What rows the examples of a run have: of a cascade those of users, with all the lists that
    its parts read. Raises ConfigError where two of them call different lists by one name."""
    if config.cascade is None:
        return config.rows_of
    lists: dict[str, tuple[str, ...]] = {}
    for name, part in part_configs(config).items():
        for key, asked in part.rows_of.requested.items():
            if lists.setdefault(key, asked) != asked:
                raise ConfigError(
                    f"cascade.{name}: {part.folder} reads other events in the list {key!r} than "
                    "another part does: call one of them otherwise"
                )
    return RowsOf(histories=lists)


class _Events(NamedTuple):
    """Which events a list holds: of some types, none standing for all, and with a label of at least
    so much, where it matters."""

    types: frozenset[str]
    least: float | None

    def __str__(self) -> str:
        types = f" {', '.join(sorted(self.types))}" if self.types else ""
        return f"events{types}" + ("" if self.least is None else f" from label {self.least:g} on")


def check_lists(config: RunConfig, name: str, part: RunConfig, read: Iterable[str]) -> None:
    """Raises ConfigError where the lists that a part reads, by name, hold other events in its own
    examples than in the cascade's: of other types, or with other labels."""
    rows = part.rows_of
    for key in read:
        types = rows.requested.get(key, ())
        here = _Events(_types(types, config.split.event_types), config.split.min_label)
        there = _Events(_types(types, part.split.event_types), part.split.min_label)
        if key in rows.positives:
            positive = part.labels.positive_from
            there = there._replace(least=1.0 if positive is None else positive)
        if here != there:
            raise ConfigError(
                f"{name}: {part.folder} has learned from lists {key!r} of {there}, and "
                f"here they hold {here}: set split.event_types and split.min_label alike, or name "
                "event types in the histories of the part"
            )


def histories_learnt(config: RunConfig, name: str, part: RunConfig) -> dict[str, tuple[str, ...]]:
    """The lists of a request to a part, by name: which types of the run's events they hold, none
    for all. Raises ConfigError where the run leaves out events that the part has learned from."""
    here = _Events(frozenset(config.split.event_types), config.split.min_label)
    histories = {}
    for key, types in part.rows_of.requested.items():
        there = _Events(_types(types, part.split.event_types), part.split.min_label)
        missing = here.types and not (there.types and there.types <= here.types)
        if missing or there.least != here.least:
            raise ConfigError(
                f"{name}: {part.folder} has learned from lists {key!r} of {there}, and this run "
                f"has {here}: set split.event_types and split.min_label alike"
            )
        histories[key] = () if there.types == here.types else tuple(sorted(there.types))
    return histories


def _types(of_list: tuple[str, ...], kept: tuple[str, ...]) -> frozenset[str]:
    """Event types in a list; none for all."""
    if not of_list or not kept:
        return frozenset(of_list or kept)
    return frozenset(of_list) & frozenset(kept)
