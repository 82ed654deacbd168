"""Finished runs -> the cascade that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import pyarrow.parquet as pq
import torch
from torch import Tensor

from feature_store.errors import ConfigError
from feature_store.examples import files_of
from feature_store.protocols import TEST
from recsys.cascade.cascade import Cascade
from recsys.cascade.generator import Generator
from recsys.cascade.options import CascadeConfig, OrderBy
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.evaluation.columns import category_feature
from recsys.inputs import History
from recsys.lists.funnel import Diversity
from recsys.lists.worth import worth
from recsys.model import Model
from recsys.rankers.base import Ranker
from recsys.retrievers.base import Retriever
from recsys.runs.leaks import check_not_learnt
from recsys.runs.log import open_log
from recsys.runs.parts import check_lists, part_configs
from recsys.runs.standing import check_finished

_MOST_CATEGORIES = 2000
Open = Callable[[RunConfig], tuple[Model, Examples]]
"""Opens the model of a finished run, and the examples that it knows."""


class Part(NamedTuple):
    """A part of a cascade: its run's config, its model, and the examples that this knows."""

    config: RunConfig
    model: Model
    examples: Examples


def open_parts(config: RunConfig, examples: Examples, open_model: Open) -> dict[str, Part]:
    """The parts of a cascade by the names of their options, for the requests of its `examples`.

    Raises:
        DataError: a part is no run, is not finished, or has learned what is to be asked for.
        ConfigError: a part is of another kind, of another log, or reads other lists.
    """
    log, _ = open_log(config)
    opened: dict[str, Part] = {}
    for name, part in part_configs(config).items():
        check_finished(f"cascade.{name}", part)
        if open_log(part)[0].fingerprint != log.fingerprint:
            raise ConfigError(
                f"cascade.{name}: {part.folder} is of another event log, {part.store_folder}, than "
                f"{config.store_folder}"
            )
        model, known = open_model(part)
        lists = [asked.name for asked in model.inputs if isinstance(asked, History)]
        check_lists(config, f"cascade.{name}", part, lists)
        check_not_learnt(config, examples, f"cascade.{name}", part, known)
        opened[name] = Part(part, model, known)
    return opened


def assemble(config: RunConfig, examples: Examples, parts: Mapping[str, Part]) -> Cascade:
    """The cascade of a config, out of its opened `parts`.

    Raises ConfigError for a task that a ranker has not, and for columns that the log lacks.
    """
    options = config.cascade
    assert options is not None
    opened = {
        name: _part(name, options, part.model, part.examples, examples)
        for name, part in parts.items()
    }
    coarse, fine = opened.get("coarse"), opened.get("fine")
    generators = {stage: opened[f"generators.{stage}"] for stage in options.generators}
    return Cascade(
        cast(dict[str, Generator], generators),
        coarse=cast(Ranking | None, coarse),
        keep=None if options.coarse is None else options.coarse.keep,
        fine=cast(Ranking | None, fine),
        place_weight=0.0 if options.fine is None else options.fine.place_weight,
        worth=worth_of(options.order_by, examples),
        diversity=_diversity(options, examples),
        known=pq.read_schema(files_of(examples.folder, TEST)[0]).names,
    ).eval()


def _part(
    name: str, options: CascadeConfig, model: Model, known: Examples, own: Examples
) -> Generator | Ranking:
    features = [asked.feature for asked in model.inputs if asked.feature is not None]
    translation = Translation.between(own, known, features)
    if name not in options.rankers:
        stage = name.removeprefix("generators.")
        budget = options.generators[stage].budget
        return Generator(cast(Retriever, model), budget, translation)
    ranker, task = cast(Ranker, model), options.rankers[name].task
    if task is not None and task not in ranker.tasks:
        raise ConfigError(
            f"cascade.{name}.task: {task!r} is none of its tasks; choose one of: "
            f"{', '.join(ranker.tasks)}"
        )
    ranker.eval().freeze()
    return Ranking(ranker, task or ranker.tasks[0], translation)


def worth_of(order_by: OrderBy, examples: Examples) -> Tensor | None:
    """What every item row [N] is worth when it is bought, in float64; None where lists are ordered
    by probability alone. An item without a known price, or cost, is worth nothing.

    Raises ConfigError for a log without prices, or costs.
    """
    if order_by == "probability":
        return None
    prices = _known(examples.last_prices, "price", order_by)
    costs = _known(examples.last_costs, "cost", order_by) if order_by == "profit" else None
    return worth(order_by, prices, costs)


def _known(values: Tensor | None, what: str, order_by: OrderBy) -> Tensor:
    if values is None:
        raise ConfigError(
            f"cascade.order_by = '{order_by}' needs a {what} of items, and this log has none: name "
            f"its column with the {what} role"
        )
    return values


def _diversity(options: CascadeConfig, examples: Examples) -> Diversity | None:
    if options.diversity is None:
        return None
    feature = category_feature(examples.schema, options.diversity.category)
    categories = examples.item_column(feature)
    if feature.kind == "bag":
        count = examples.spec(feature.name).rows
        if count > _MOST_CATEGORIES:
            raise ConfigError(
                f"cascade.diversity.category: {feature.name!r} has {count:,} values, at most "
                f"{_MOST_CATEGORIES:,} make categories"
            )
        hot = torch.zeros(len(categories), count, dtype=torch.bool)
        categories = hot.scatter_(1, categories, True)[:, 1:]
    return Diversity(categories, options.diversity.weight)
