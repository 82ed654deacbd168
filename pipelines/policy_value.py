"""A bundle and a log of exposures -> what the bundle's lists would have been worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from feature_store.progress import stage
from pipelines.cli.answers import write_answers
from pipelines.printer import print_whole, printer
from recsys.evaluation.off_policy.logged_lists import read_lists
from recsys.evaluation.off_policy.target import lists_of_bundle
from recsys.evaluation.off_policy.value import DIFFERENCE, PolicyValue, value_of
from recsys.evaluation.off_policy.weights import Assumption
from recsys.serving.recommender import Recommender


def value_policy(
    bundle: Path,
    log: str,
    arms: Sequence[str],
    assumption: Assumption,
    clip: float | None,
    exclude_seen: bool,
    out: Path | None,
) -> PolicyValue:
    """Print the value of a bundle's lists by a log, or write it to a file.

    Raises DataError for a log or a bundle that cannot be read, or have nothing in common.
    """
    lists = read_lists(log, arms)
    recommender = Recommender.open(bundle)
    with stage("ask the bundle"):
        target, told = lists_of_bundle(recommender, lists, exclude_seen=exclude_seen)
    value = value_of(lists, target, assumption=assumption, clip=clip)
    if out is not None:
        write_answers(value.table(), out)
    else:
        print_whole(_table(value), printer())
    for line in [*_facts(value), *(f"warning: {each}" for each in (*value.warnings, *told))]:
        printer().print(line, soft_wrap=True)
    return value


def _table(value: PolicyValue) -> Table:
    table = Table(title="value of a list", box=box.SIMPLE)
    table.add_column("reward", no_wrap=True)
    table.add_column("estimator", no_wrap=True)
    for name in ("value", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for reward, by_name in value.estimates.items():
        for name, estimate in by_name.items():
            interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
            table.add_row(reward, name, f"{estimate.value:.4f}", interval)
    return table


def _facts(value: PolicyValue) -> list[str]:
    support = value.support
    place = support.thinnest
    facts = [
        f"{value.lists:,} lists of {value.users:,} users; {support.agreeing:.1%} of the policy's "
        f"places hold what was shown there; an effective sample of {support.effective[place]:,.1f} "
        f"lists at place {place + 1}, the least of all; largest weight {support.largest:,.1f}"
    ]
    for reward, users in value.users_per_arm.items():
        difference = value.estimates[reward][DIFFERENCE]
        sure = "" if difference.low > 0 or difference.high < 0 else ", whose interval holds 0,"
        needs = "no number of users shows" if users is None else f"{users:,} users in each arm show"
        facts.append(
            f"A/B test of {reward}: {needs} a difference of {difference.value:+.4f} a list{sure} "
            "with a power of 80 % at the two-sided level of 5 %"
        )
    return facts
