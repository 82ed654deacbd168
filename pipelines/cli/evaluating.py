"""The verb that measures: a trained run, lists made elsewhere, or a policy by a log of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.arguments import Out, Overrides, finite, load
from pipelines.cli.bundles import bundle_in


def evaluate(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file, or the folder of a run.")
    ] = None,
    overrides: Overrides = None,
    recommendations: Annotated[
        Path | None,
        typer.Option(help="Parquet or CSV of lists made elsewhere: user, item, and rank or score."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call those lists; by default the file's name.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A bundle, or the folder of a run: what would its lists have been worth?"
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(help="With --policy: exposures, a file, folder or pattern of Parquet."),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="With --policy: only lists of this arm; may be repeated."),
    ] = None,
    assume: Annotated[
        Literal["place", "cascade", "list"],
        typer.Option(
            help="With --policy: a reward depends on the item and its place; on the items before "
            "it, too; or on the whole list."
        ),
    ] = "place",
    clip: Annotated[
        float | None,
        typer.Option(callback=finite, help="With --policy: weights above are cut to it."),
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="With --policy: lists may repeat the history.")
    ] = False,
    out: Out = None,
) -> None:
    """Full-catalogue test figures of a trained run beside its baselines.

    With --recommendations no model is needed: lists that any other system made for the users of
    the log are measured under the config's protocol, and stand beside the run's own figures.

    With --policy and --log no config is needed: a log of lists that explored says what the lists
    of another bundle would have been worth, in clicks and money, and how far to trust that.

    Example: recsys evaluate CONFIG --recommendations theirs.parquet

    Example: recsys evaluate --policy runs/new --log exposures --arm old
    """
    loaded = None if config is None else load(config, overrides)
    from feature_store.errors import ConfigError
    from pipelines.evaluate import evaluate as job
    from pipelines.evaluate import evaluate_lists
    from pipelines.policy_value import value_policy

    if policy is not None or log is not None:
        if policy is None or log is None or config is not None or recommendations is not None:
            raise ConfigError("a policy is valued by --policy and --log together, and nothing else")
        value_policy(bundle_in(policy), log, arm or [], assume, clip, not include_seen, out)
        return
    if loaded is None:
        raise ConfigError("name a config or a run, or give --policy and --log")
    if recommendations is None:
        job(loaded)
    else:
        evaluate_lists(loaded, recommendations, name)
