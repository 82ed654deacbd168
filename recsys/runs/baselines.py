"""Which retrievers stand beside a run's model."""

from __future__ import annotations

from collections.abc import Callable

from feature_store.protocols import TEST, NextBasket
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.options import ModelConfig
from recsys.retrievers.ease import EASEConfig
from recsys.retrievers.item_knn import ItemKNNConfig
from recsys.retrievers.personal_popularity import PersonalPopularityConfig
from recsys.retrievers.popularity import PopularityConfig, RecentPopularityConfig
from recsys.retrievers.tifu_knn import TIFUKNNConfig

# Items with training events up to which they are fitted unasked, in about a gigabyte and some tens
# of seconds on two cores; and the scores that ranking for all test users may cost, in minutes.
_EASE_ITEMS, _ITEM_KNN_ITEMS = 8_000, 40_000
_EASE_SCORES, _ITEM_KNN_SCORES, _TIFU_KNN_SCORES = 5e12, 1e10, 3e10


def baselines_of(
    config: RunConfig, examples: Examples, note: Callable[[str], None]
) -> list[ModelConfig]:
    """The configured baselines but for the model itself.

    Where none are configured, those in closed form that fit in memory: popularity, in a log with
    times of the last days too, what a user has had most often where that may be recommended
    again, TIFU-kNN where next baskets are asked for, ItemKNN and EASE. What is left out for its
    size is noted.
    """
    chosen: list[ModelConfig] = list(config.baselines or ())
    if config.baselines is None:
        chosen = _by_default(config, examples, note)
    return [baseline for baseline in chosen if baseline != config.model]


def _by_default(
    config: RunConfig, examples: Examples, note: Callable[[str], None]
) -> list[ModelConfig]:
    chosen: list[ModelConfig] = [PopularityConfig()]
    if examples.schema.clock == "time":
        chosen.append(RecentPopularityConfig())
    if config.split.seen == "include":
        chosen.append(PersonalPopularityConfig())
    items, users = int((examples.train_events > 0).sum()), examples.summary.rows[TEST]
    tifu = users * int(examples.train_events.sum()) <= _TIFU_KNN_SCORES
    knn = items <= _ITEM_KNN_ITEMS and users * items <= _ITEM_KNN_SCORES
    ease = items <= _EASE_ITEMS and users * items**2 <= _EASE_SCORES
    costly: list[tuple[ModelConfig, bool]] = [(ItemKNNConfig(), knn), (EASEConfig(), ease)]
    if isinstance(config.split, NextBasket):
        costly.insert(0, (TIFUKNNConfig(basket=config.split.basket), tifu))
    for baseline, cheap in costly:
        if cheap:
            chosen.append(baseline)
        elif baseline.name != config.model.name:
            note(
                f"{baseline.name} is left out of the baselines: {items:,} items for {users:,} "
                "users are too many to do unasked; name it in baselines to measure it"
            )
    return chosen
