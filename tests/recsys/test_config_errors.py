"""Whatever is wrong with a config is told in one line, in our words, with the key at fault."""

from __future__ import annotations

import copy
import math
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from feature_store.errors import ConfigError
from feature_store.options import Options
from recsys.config import RunConfig, parse_config

Tree = dict[str, Any]
Key = tuple[str | int, ...]
CONFIGS = sorted(Path(__file__).parents[2].glob("pipelines/configs/*.toml"))
# what pydantic says of itself
VOCABULARY = re.compile(
    r"Input |[Tt]ag '|Field required|validation error|validator|"
    r"valid (?:dict|int|num|str|list|tup)|Value error|Extra inputs|discriminator|pydantic|"
    r"dictionary|instance of|unable to|NoneType"
)
NAMED_BY_PEOPLE = [(section,) for section in ("generators", "histories", "tasks")]
VALUES: list[Any] = [
    *(-1, 0, 1, 10**30, -0.5, 2.5, float("nan"), float("inf"), True, None, "", "\u00a7", "a\nb"),
    *([], [[]], [-1], ["x"], {}, {"x": 1}, {"name": "x"}, [{}], "sasrec", "2024-13-45"),
]


def leaves(tree: Any, before: Key = ()) -> Iterator[Key]:
    """Every key of a tree, those of sections too."""
    parts: Any = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in parts:
        yield (*before, key)
        if isinstance(value, dict) or (isinstance(value, list) and value):
            yield from leaves(value, (*before, key)) if not isinstance(value, str) else ()


def message_of(tree: Tree) -> str | None:
    try:
        parse_config(tree)
    except ConfigError as error:
        return str(error)
    return None


@st.composite
def places(draw: st.DrawFn) -> tuple[Tree, Key]:
    """A config that is valid, with all its defaults, and one of its keys."""
    tree = tomllib.loads(draw(st.sampled_from(CONFIGS)).read_text())
    if draw(st.booleans()):
        tree = parse_config(tree).to_dict()
    return tree, draw(st.sampled_from(list(leaves(tree))))


def section_of(tree: Tree, key: Key) -> Any:
    for part in key[:-1]:
        tree = tree[part]  # type: ignore[index]
    return tree


def assert_told(message: str, key: Key) -> None:
    names = [str(part) for part in key if isinstance(part, str)]
    assert "\n" not in message
    assert names[-1] in message, f"{key} is not named: {message}"
    assert not VOCABULARY.search(message), message


@settings(max_examples=150, deadline=None)
@given(places(), st.sampled_from(VALUES))
def test_a_wrong_value_is_told_with_its_key(place: tuple[Tree, Key], value: Any) -> None:
    tree, key = place
    wrong = copy.deepcopy(tree)
    section_of(wrong, key)[key[-1]] = copy.deepcopy(value)
    if (message := message_of(wrong)) is not None:
        assert_told(message, key)


@settings(max_examples=100, deadline=None)
@given(places(), st.integers(0, 30), st.sampled_from(["twice", "gone", "other"]))
@example(
    ({"name": "r", "data": {"source": "synthetic"}, "ranker": {"name": "dcn"}}, ("name",)),
    0,
    "other",
)
def test_a_misspelled_key_is_told(place: tuple[Tree, Key], at: int, how: str) -> None:
    tree, key = place
    *_, name = key
    wrong = copy.deepcopy(tree)
    section = section_of(wrong, key)
    chosen = "tables" in key[:-1] or key[-2:-1] in NAMED_BY_PEOPLE
    if not isinstance(name, str) or key[:1] == ("tune",) or chosen:
        return  # places of a list, and names that anyone may choose
    at %= len(name)
    letter = {"twice": 2 * name[at], "gone": "", "other": "z"}[how]
    misspelled = name[:at] + letter + name[at + 1 :]
    if misspelled in section or misspelled == name:
        return
    section[misspelled] = section.pop(name)
    message = message_of(wrong)
    assert message is not None
    assert_told(message, (*key[:-1], misspelled))


def all_options(kind: type[Options] = Options) -> Iterator[type[Options]]:
    for below in kind.__subclasses__():
        yield below
        yield from all_options(below)


def tables_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from tables_of(part)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf"])
def test_no_option_takes_a_number_that_is_none(value: Any) -> None:
    """A bound lets nan pass, since every comparison with it is false."""
    RunConfig.model_json_schema()  # imports the options of every model
    taken, asked = [], 0
    for kind in set(all_options()):
        for name, field in kind.model_fields.items():
            for model in tables_of(field.annotation):
                assert issubclass(model, Options), f"{kind.__name__}.{name}: {model.__name__}"
            written = str(field.annotation)
            if "float" not in written or "str" in written:  # a text may be anything
                continue
            asked += 1
            try:
                kind.model_validate({name: [value] if "tuple" in written else value})
            except ValidationError as error:
                if any(where["loc"][:1] == (name,) for where in error.errors()):
                    continue
            taken.append(f"{kind.__name__}.{name}")
    assert asked > 50
    assert taken == []


@pytest.mark.parametrize(
    ("name", "store", "message"),
    [
        ("store", None, "name: 'store' is what lies beside the runs in r: choose another"),
        ("STORE", None, "what lies beside"),
        ("mlflow.db", None, "what lies beside"),
        ("mlflow.db-wal", None, "what lies beside"),
        ("mlartifacts", None, "what lies beside"),
        ("a", "r/a", "lie within each other"),
        ("a", "r/a/bundle", "lie within each other"),
        ("a", "r", "lie within each other"),
        ("stores", "r/ab", None),
    ],
)
def test_no_run_lies_where_something_else_does(
    name: str, store: str | None, message: str | None
) -> None:
    tree: Tree = {"name": name, "output": "r", "data": {"source": "synthetic"}}
    tree |= {"retriever": {"name": "popularity"}} | ({} if store is None else {"store": store})
    told = message_of(tree)
    assert told is None if message is None else told is not None and message in told
