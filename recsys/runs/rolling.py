"""Rolling-origin evaluation: the same model, trained anew before each of several test windows.

One window is one draw of what may happen; over several a figure has a mean and a spread. Sources:
Tashman, Out-of-sample tests of forecasting accuracy, International Journal of Forecasting 16,
2000; for recommenders Hidasi & Czapp, Widespread flaws in offline evaluation, RecSys 2023.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from feature_store.columns import TIME
from feature_store.errors import ConfigError
from feature_store.examples import files_of
from feature_store.parquet import read_parquet
from feature_store.protocols import TEST, GlobalTime
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.runs.finished import Run, measured


def origins_of(config: RunConfig, origins: int) -> list[RunConfig]:
    """The runs of a config at several origins, the earliest first: the last is the config's own.

    Raises ConfigError where its protocol has none.
    """
    split = config.split
    if not isinstance(split, GlobalTime) or split.test_start is not None:
        raise ConfigError(
            "origins roll under split.protocol = 'global_time' with test_days and validation_days, "
            "as many days for each of them"
        )
    tree = config.to_dict()
    configs = []
    for back in range(origins - 1, -1, -1):
        own = {"name": f"{config.name}-back{back}"} if back else {}
        own_split = {"split": tree["split"] | {"windows_back": split.windows_back + back}}
        configs.append(parse_config(tree | own | own_split))
    return configs


def window_of(examples: Examples) -> tuple[datetime, datetime]:
    """The first and the last moment (UTC) at which something is asked for in the test."""
    times = [
        read_parquet(path, [TIME])[TIME].to_numpy() for path in files_of(examples.folder, TEST)
    ]
    first = min(part.min() for part in times if len(part))
    last = max(part.max() for part in times if len(part))
    return datetime.fromtimestamp(int(first), UTC), datetime.fromtimestamp(int(last), UTC)


def summarise(origins: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Any]]:
    """Retriever -> figure -> its `values` at every origin, their `mean` and standard deviation `sd`
    (of a sample; None of one origin). Every origin counts alike, however many users it has.

    Figures that are not known at each origin are left out, as are retrievers.
    """
    first, *others = origins
    told: dict[str, dict[str, Any]] = {}
    for name, figures in first.items():
        if not all(name in each for each in others):
            continue
        told[name] = {}
        for metric in figures:
            values = [each[name].get(metric) for each in origins]
            known = [v for v in values if v is not None and not math.isnan(v)]
            if len(known) == len(origins):
                spread = statistics.stdev(known) if len(known) > 1 else None
                told[name][metric] = {
                    "values": known,
                    "mean": statistics.fmean(known),
                    "sd": spread,
                }
    return told


def figures_of(run: Run) -> dict[str, dict[str, float]]:
    """Retriever or ranker -> its test figures."""
    return {name: of["metrics"] for name, of in measured(run.results)[1].items()}
