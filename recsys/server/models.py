"""What is asked over HTTP, and what is answered.

Questions are validated models; answers are typed dictionaries, which cost nothing to make.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)
from typing_extensions import TypedDict  # that of Python 3.11 does not say what is required

from recsys.server.limits import (
    LONGEST_EXPRESSION,
    LONGEST_LIST,
    LONGEST_TEXT,
    MOST_FEATURES,
    MOST_ITEMS,
    MOST_QUESTIONS,
)

Text = Annotated[str, StringConstraints(strict=True, max_length=LONGEST_TEXT)]
Id = StrictInt | Text
Ids = Annotated[list[Id], Field(max_length=LONGEST_LIST)]
Value = StrictBool | StrictInt | StrictFloat | Text | None
Features = Annotated[
    dict[Text, Value | Annotated[list[Value], Field(max_length=LONGEST_LIST)]],
    Field(max_length=MOST_FEATURES),
]
Rows = Annotated[list[Features], Field(min_length=1, max_length=LONGEST_LIST)]
Seconds = Annotated[int, Field(strict=True, ge=0, lt=1 << 40)]


def _number(value: Any) -> Any:
    """A count is a JSON number without a fraction; `true` is none."""
    return value if type(value) is int else _NoCount()


class _NoCount:
    """What validates as no integer."""


Count = Annotated[int, BeforeValidator(_number), Field(ge=1, le=MOST_ITEMS)]


class Asked(BaseModel):
    """A body: no field but those that are known, and numbers that are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Question(Asked):
    """Who asks: a known user's id, or a history, or both; what is unknown may be left out."""

    user: Id | None = Field(None, description="Id of a user; with a history only a label.")
    history: Ids | None = Field(
        None, description="Item ids, oldest first. Without it: what is known of the user."
    )
    history_time: Annotated[list[Seconds], Field(max_length=LONGEST_LIST)] | None = Field(
        None, description="Seconds since 1970 of each entry of the history."
    )
    time: Seconds | None = Field(None, description="Seconds since 1970 of the question.")
    features: Features = Field({}, description="Of the user, by the log's names.")

    @model_validator(mode="after")
    def _about_somebody(self) -> Question:
        if self.history_time is not None and len(self.history_time) != len(self.history or ()):
            raise ValueError("history_time: has another length than history")
        return self


class Recommend(Question):
    """A question for items: of one user, or of several in `requests`, all with the same options."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user": 42, "k": 5},
                {"history": [1, 5, 8], "features": {"age": 31}, "exclude": [13]},
                {"requests": [{"user": 42}, {"history": [1, 5, 8]}], "k": 20},
            ]
        }
    )

    requests: Annotated[list[Question], Field(min_length=1, max_length=MOST_QUESTIONS)] | None = (
        Field(None, description="Several questions in one call; answers come in their order.")
    )
    k: Count = Field(10, description="Items of an answer, at most.")
    include_seen: StrictBool = Field(False, description="Items of the history may come again.")
    exclude: Ids = Field([], description="Items that are left out.")
    allowed: Ids | None = Field(None, description="The only items that may be answered.")
    where: Annotated[str, StringConstraints(strict=True, max_length=LONGEST_EXPRESSION)] | None = (
        Field(None, description="Condition on the catalogue's columns that items must meet.")
    )

    stages: StrictBool = Field(False, description="Tell what each stage of a cascade left, too.")

    @model_validator(mode="after")
    def _of_one_or_several(self) -> Recommend:
        alone = self.user is not None or self.history is not None
        if alone == (self.requests is not None):
            raise ValueError("user: give a user or a history, or several questions in requests")
        if self.requests is not None:
            if self.features or self.time is not None or self.history_time is not None:
                raise ValueError("features: belong into each of the requests")
            for place, question in enumerate(self.requests):
                if question.user is None and question.history is None:
                    raise ValueError(f"requests.{place}.user: give a user or a history")
        return self


class Similar(Asked):
    """A question for items near others, of which each has its own answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [5], "k": 3}]})

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_QUESTIONS)] = Field(
        description="Item ids."
    )
    k: Count = Field(10, description="Items of an answer, at most.")


class Score(Asked):
    """A question how likely items are for a user."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": 42, "items": [5, 8]}]})

    user: Id | None = Field(None, description="Id of a user.")
    items: Annotated[list[Id], Field(min_length=1, max_length=LONGEST_LIST)] = Field(
        description="Item ids."
    )
    features: Features = Field({}, description="What else the ranker reads, by the log's names.")
    part: Text | None = Field(None, description="Part of the bundle; by default its only ranker.")
    task: Text | None = Field(None, description="Which of its tasks; by default the first.")


class Events(Asked):
    """What users did, as rows of the event log."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"events": [{"user": 42, "item": 5, "time": "2026-11-30T12:00:00Z"}]}]
        }
    )

    events: Rows = Field(description="Columns of the log by its names, or `user` and `item`.")


class Items(Asked):
    """Items that the bundle does not find yet, as rows of its catalogue."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item": 7, "title": "A new title"}]}]}
    )

    items: Rows = Field(description="Columns of the log's items by their names, or `item`.")


class Item(TypedDict):
    """An item of an answer, best first. Its `origin` names the generators that found it, joined by
    +, or `fallback`."""

    item: int | str
    score: float | None
    title: NotRequired[str]
    origin: NotRequired[str]


class StageAnswer(TypedDict):
    """What a stage of a cascade left, best first."""

    stage: str
    items: list[Item]


class Answer(TypedDict):
    """Of one question. `fallback` says that popular items answered in the model's stead; where
    `error` says why there is no answer, there are no items. Where exposures are written down,
    clicks name the `list_id` that led to them; the `arm` says whose bundle answered."""

    user: NotRequired[int | str]
    bundle: NotRequired[str]
    fallback: bool
    items: list[Item]
    stages: NotRequired[list[StageAnswer]]
    list_id: NotRequired[str]
    arm: NotRequired[str]
    error: NotRequired[str]


class Recommended(TypedDict):
    """An answer for each question, in their order."""

    answers: list[Answer]


class SimilarAnswer(TypedDict):
    """The items nearest to one, by the cosine of their vectors."""

    item: int | str
    bundle: NotRequired[str]
    items: list[Item]
    error: NotRequired[str]


class SimilarTo(TypedDict):
    """An answer for each item, in their order."""

    answers: list[SimilarAnswer]


class ScoredItem(TypedDict):
    """How likely an item is."""

    item: int | str
    probability: float | None


class Scored(TypedDict):
    """The items in the order of the question."""

    bundle: str
    task: str
    items: list[ScoredItem]


class Added(TypedDict):
    """How many events came, and how many of them were new and are kept."""

    received: int
    new: int


class Grown(TypedDict):
    """How many items came, how many of them are new, and the version of the bundle that finds
    them, which answers now."""

    received: int
    new: int
    version: str


class Health(TypedDict):
    """Whether the process lives."""

    status: str


class Ready(TypedDict):
    """What answers, and whether another bundle was refused since."""

    status: str
    bundle: str
    folder: str
    since: str
    arms: NotRequired[dict[str, str]]
    refused: NotRequired[str]
