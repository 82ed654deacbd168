"""What a report shows of a ranker that explains itself: concepts that count, and examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feature_store.durable import read_json
from feature_store.schema import Schema
from recsys.report.example_users import titles_of
from recsys.runs.finished import Run
from recsys.runs.phases import phases_of_run

CONCEPTS = 20  # the others are in the file
_SHOWN = 0.005  # a summand of less is none, as it is written


@dataclass(frozen=True)
class Summand:
    """What adds to a logit: `own` where it is a concept that the item is labelled with; `share` is
    its size over that of the example's largest."""

    name: str
    value: float
    share: float
    own: bool = False
    concept: bool = True


@dataclass(frozen=True)
class ExplainedPair:
    """A user and an item, by its title where there is one, and what made the probability."""

    user: str
    item: str
    title: str | None
    label: float
    probability: float
    summands: list[Summand]


@dataclass(frozen=True)
class Explained:
    """Of `rows` of the test: the concepts that contribute most, of how many, and examples;
    `concept_auc` is the mean over concepts."""

    rows: int
    concept_auc: float | None
    concepts: list[dict[str, Any]]
    of: int
    examples: list[ExplainedPair]


def explained(run: Run) -> Explained | None:
    """What `explanations.json` of a run holds, with titles; None where there is none."""
    told = read_json(run.files.explanations)
    if not told:
        return None
    schema_file = run.files.phase(phases_of_run(run)[-1].name).examples / "schema.json"
    items = [example["item"] for example in told["examples"]]
    titles = titles_of(run, Schema.load(schema_file), items) if schema_file.exists() else {}
    return Explained(
        rows=told["rows"],
        concept_auc=told["concept_auc"],
        concepts=told["concepts"][:CONCEPTS],
        of=len(told["concepts"]),
        examples=[_pair(example, titles.get(example["item"])) for example in told["examples"]],
    )


def _pair(example: dict[str, Any], title: str | None) -> ExplainedPair:
    named = [(r["name"], r["value"], r["own"], True) for r in example["reasons"]]
    rest = [
        (name, value, False, False)
        for name, value in (
            ("all other concepts", example["others"]),
            ("bias", example["bias"]),
            ("calibration", example["calibration"]),
        )
        if abs(value) >= _SHOWN
    ]
    largest = max([abs(value) for _, value, *_ in named + rest], default=0.0) or 1.0
    return ExplainedPair(
        user=str(example["user"]),
        item=str(example["item"]),
        title=title,
        label=example["label"],
        probability=example["probability"],
        summands=[
            Summand(name, value, abs(value) / largest, own, concept)
            for name, value, own, concept in named + rest
        ],
    )
