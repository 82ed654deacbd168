"""The verb that says why an item is in a list, or what speaks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.answers import Format, print_answers, write_answers
from pipelines.cli.arguments import Out, Signed
from pipelines.cli.bundles import bundle_in
from pipelines.cli.known_users import Users, kept


def explain(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or its bundle.")],
    user: Annotated[str, typer.Option("--user", "-u", help="A known user.")],
    item: Annotated[str, typer.Option("--item", "-i", help="An item.")],
    k: Annotated[
        int,
        typer.Option("-k", min=1, help="Length of the list, or concepts or words named."),
    ] = 10,
    store: Users = None,
    form: Format = None,
    require_signature: Signed = None,
    out: Out = None,
) -> None:
    """Say what became of an item in a cascade, or what speaks for it in a single model.

    A cascade tells which generator found the item, what each stage thought of it, and where it was
    lost; a ranker such as sesa tells the summands of its logit; a retriever that reads texts, such
    as recformer, the words of the history, and of the item, that its score comes from.

    Example: recsys explain runs/synthetic_cascade --user 7 --item 42
    """
    from pipelines.printer import say
    from recsys.serving.manifest import Manifest, RankerRecord
    from recsys.serving.word_reasons import reads_words

    bundle = bundle_in(folder)
    parts = Manifest.load(bundle, require_signature).parts.values()
    of = _of_cascade
    if all(isinstance(part, RankerRecord) for part in parts):
        of = _of_ranker
    elif all(reads_words(part) for part in parts):
        of = _of_words
    given = {"users": kept(store), "signed_by": require_signature}
    reasons, told = of(folder, bundle, given, user, item, k)
    if out is not None:
        write_answers(reasons, out)
    else:
        print_answers(reasons, form, f"item {item} for user {user}")
    say(f"item {item} for user {user}: {told}", stderr=True)


def _of_cascade(
    folder: Path, bundle: Path, given: dict[str, Any], user: str, item: str, k: int
) -> tuple[Any, str]:
    from pipelines.cli.bundles import warn_of_other_weights
    from recsys.serving.explaining import explain_item, fate
    from recsys.serving.recommender import Recommender

    recommender = Recommender.open(bundle, **given)
    warn_of_other_weights(folder, recommender.finder.record.about)
    opinions = explain_item(recommender, user, item, k)
    return opinions, fate(opinions, k)


def _of_words(
    folder: Path, bundle: Path, given: dict[str, Any], user: str, item: str, k: int
) -> tuple[Any, str]:
    from pipelines.cli.bundles import warn_of_other_weights
    from recsys.serving.recommender import Recommender
    from recsys.serving.word_reasons import explain_words

    recommender = Recommender.open(bundle, **given)
    warn_of_other_weights(folder, recommender.finder.record.about)
    reasons = explain_words(recommender, recommender.requests_of([user]), item, k)
    sides, added = (reasons.column(name).to_pylist() for name in ("side", "contribution"))
    score = sum(value for side, value in zip(sides, added, strict=True) if side == "item")
    return reasons, f"score {score:.4f}, the sum of either side"


def _of_ranker(
    folder: Path, bundle: Path, given: dict[str, Any], user: str, item: str, k: int
) -> tuple[Any, str]:
    from pipelines.cli.bundles import warn_of_other_weights
    from recsys.serving.explainer import Explainer

    explainer = Explainer.open(bundle, **given)
    warn_of_other_weights(folder, explainer.record.about)
    asked = explainer.pair(user, item)
    reasons = explainer.explain_table(asked, k).drop_columns(["request"])
    probability = explainer.score_table(asked).column("probability")[0].as_py()
    return reasons, f"probability {probability:.4f}, the logistic function of the reasons' sum"
