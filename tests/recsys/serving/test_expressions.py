"""Expressions over a catalogue: they agree with Python's own, row by row, and refuse the rest."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.expressions import (
    AllOf,
    Among,
    AnyOf,
    Compared,
    Expression,
    Missing,
    Not,
    parse,
)
from recsys.serving.filters import Filters

SCHEMA = Schema(
    user="user",
    item="sku",
    title="title",
    features=(
        Feature(name="user", kind="id", side="user"),
        Feature(name="sku", kind="id", side="item", dtype="int64"),
        Feature(name="genre", kind="id", side="item"),
        Feature(name="words", kind="bag", side="item"),
        Feature(name="codes", kind="bag", side="item", dtype="int64"),
        Feature(name="year", kind="dense", side="item", dtype="int64"),
        Feature(name="unit price", kind="dense", side="item", dtype="float32"),
        Feature(name="margin", kind="dense", side="item", dtype="float64"),
        Feature(name="released", kind="text", side="item"),
        Feature(name="title", kind="text", side="item"),
    ),
)
LAST = 2**63 - 1
HOLDS = "column {!r} of the catalogue holds {}"
ROWS: list[dict[str, Any]] = [
    dict(zip(SCHEMA.side_schema("item").names, values, strict=True))
    for values in [
        (1, "Comedy", ["dry", "old"], [1, 2], 1990, 9.99, 0.1, "2020-01-31", "Ann"),
        (2, "Drama", [], [2**53 + 1], 1989, 0.1, -0.0, "2020-02-01", 'a "b"'),
        (3, None, None, None, None, None, float("nan"), None, None),
        (4, "it's", ["old", None], [LAST, -1], LAST, -0.0, 1e300, "2019-12-31", "émile"),
        (5, "", [None], [], -LAST - 1, float("inf"), -1.5, "", "\n"),
        (6, "Comedy", ["dry", "dry"], [0], 2**53 + 1, 3.5, 2.0, "2020-01-31T10:00", "zebra"),
    ]
]
IDS = [6, 1, 2, 3, 4, 5, 7]  # places of items, of which the catalogue does not know the last


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> Filters:
    path = tmp_path_factory.mktemp("catalogue") / "items.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS, SCHEMA.side_schema("item")), path)
    ids = pa.array(IDS)
    catalogue = ItemCatalogue(path, SCHEMA, ids)

    def places(asked: pa.Array) -> np.ndarray:
        return np.array([IDS.index(item) if item in IDS else -1 for item in asked.to_pylist()])

    return Filters(catalogue, pa.int64(), len(IDS), places)


def chosen(filters: Filters, where: str) -> list[int]:
    mask = filters.mask(where=where)
    assert mask is not None
    return sorted(IDS[place] for place in mask.nonzero().squeeze(1).tolist())


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ('genre in ("Comedy", "Drama")', [1, 2, 6]),
        ('genre in ("Comedy", "Drama") and not year < 1990', [1, 6]),
        ('genre == "Comedy"', [1, 6]),
        ("genre != 'Comedy'", [2, 4, 5]),  # null is no other genre
        ('genre not in ["Comedy"]', [2, 4, 5]),
        ("genre == 'it\\'s'", [4]),
        ('genre == ""', [5]),
        ("genre in ()", []),
        ("not genre in ()", [1, 2, 4, 5, 6]),
        ("genre is None", [3, 7]),  # of the last the catalogue knows nothing
        ("genre is not None", [1, 2, 4, 5, 6]),
        ('words in ("dry", "new")', [1, 6]),
        ('"old" in words', [1, 4]),
        ('words == "old"', [1, 4]),
        ('words not in ("dry",)', [2, 4, 5]),
        ("codes in (-1, 0)", [4, 6]),
        (f"codes in ({2**53})", []),  # to the last digit
        (f"codes in ({2**53 + 1}, {LAST + 1})", [2]),
        (f"year > {2**53}", [4, 6]),
        (f"year >= {2**53 + 1}.0", [4, 6]),
        (f"year < {LAST + 1}", [1, 2, 4, 5, 6]),
        (f"year >= {LAST + 1}", []),
        (f"not year >= {10**30}", [1, 2, 4, 5, 6]),
        ("year == 1990.0", [1]),
        ("year == 1989.5", []),
        ("1989 <= year < 1990", [2]),
        ("1990 > year > 1000", [2]),
        ("year < 1989.5", [2, 5]),
        ("year >= 1989.5 and year <= 1990.5", [1]),
        ("`unit price` == 0.1", [2]),  # as 32 bits hold it
        ("`unit price` < 0.1", [4]),
        ("`unit price` in (0, 3.5)", [4, 6]),
        ("`unit price` > 1e38", [5]),
        ("margin == 0", [2]),
        ("margin >= -1.5 or margin is None", [1, 2, 3, 4, 5, 6, 7]),
        ("not margin > 0", [2, 5]),  # NaN is not known
        ('released >= "2020-01-31" and released < "2020-02"', [1, 6]),  # dates as texts
        ('title > "zea"', [4, 6]),
        ('title == "\\""', []),
        ('title == "a \\"b\\""', [2]),
        ("sku in (1, 2, 99)", [1, 2]),
        ("(year == 1990) or (not (genre == 'Comedy'))", [1, 2, 4, 5]),
        ("genre == 'Comedy' or year > 0 and margin == 0", [1, 2, 6]),
        ("not (genre == 'Comedy' or genre is None)", [2, 4, 5]),
        ("\n genre\t==\n'Drama' ", [2]),
    ],
)
def test_what_expressions_choose(filters: Filters, where: str, expected: list[int]) -> None:
    assert chosen(filters, where) == expected


def test_masks_join_ids_and_expressions(filters: Filters) -> None:
    assert filters.mask() is None
    mask = filters.mask(allowed=[1, 2, 6, 99], forbidden=pa.array([6]), where="year > 0")
    assert mask is not None and mask.nonzero().squeeze(1).tolist() == [1, 2]
    same = filters.mask(allowed=["1", "2"])
    assert same is not None and same.nonzero().squeeze(1).tolist() == [1, 2]
    for name, value in (("allowed", ["x"]), ("forbidden", [[1]])):
        with pytest.raises(DataError, match=f"{name} items must be ids of type int64"):
            filters.mask(**{name: value})


def test_masks_of_expressions_are_kept_and_not_handed_out(filters: Filters) -> None:
    first, again = filters.mask(where="year > 1"), filters.mask(where=" year  >  1 ")
    assert first is not None and again is not None and first.equal(again)
    first[:] = False
    assert filters.mask(where="year > 1").equal(again)  # type: ignore[union-attr]
    info = filters._of_expression.cache_info()
    assert info.hits >= 2 and info.maxsize is not None


# What Python says of a row, where None is not known.
def truth(expression: Expression, row: dict[str, Any]) -> bool | None:
    match expression:
        case Not(of):
            value = truth(of, row)
            return None if value is None else not value
        case AllOf(parts):
            values = [truth(part, row) for part in parts]
            return False if False in values else None if None in values else True
        case AnyOf(parts):
            values = [truth(part, row) for part in parts]
            return True if True in values else None if None in values else False
        case Missing(column):
            return known(row[column]) is None
        case Among(column, wanted):
            value = known(row[column])
            if isinstance(value, list):
                return any(entry in wanted for entry in value if entry is not None)
            if column == "unit price":
                wanted = tuple(as_held(number) for number in wanted)
            return None if value is None else value in wanted
        case Compared(column, sign, bound):
            value = known(row[column])
            if column == "unit price":
                bound = as_held(bound)
            return None if value is None else SIGNS[sign](value, bound)


def known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def as_held(number: Any) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
}
TEXTS = st.sampled_from(["Comedy", "dry", "", "it's", 'a "b"', "2020-01-31", "\n", "émile", "\\"])
WHOLE = st.sampled_from([-LAST - 2, -LAST - 1, -1, 0, 1, 2, 1989, 1990, 2**53, 2**53 + 1, LAST])
NUMBERS = WHOLE | st.sampled_from([0.1, -0.0, -1.5, 3.5, 1989.5, 1e39, 1e300, float(2**53)])
TEXT_COLUMNS, WHOLE_COLUMNS = ("genre", "released", "title"), ("year", "sku")
OTHER_NUMBERS, BAGS = ("`unit price`", "margin"), ("words", "codes")


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from((*TEXT_COLUMNS, *WHOLE_COLUMNS, *OTHER_NUMBERS, *BAGS)))
    values = TEXTS if column in (*TEXT_COLUMNS, "words") else NUMBERS
    signs = ("==", "!=") if column in BAGS else ("==", "!=", "<", "<=", ">", ">=")
    form = draw(st.sampled_from(("sign", "in", "missing")))
    if form == "missing":
        return f"{column} is {draw(st.sampled_from(('', 'not ')))}None"
    if form == "in":
        listed = ", ".join(map(literal, draw(st.lists(values, max_size=3))))
        return f"{column} {draw(st.sampled_from(('', 'not ')))}in ({listed})"
    return f"{column} {draw(st.sampled_from(signs))} {literal(draw(values))}"


def literal(value: Any) -> str:
    if not isinstance(value, str):
        return repr(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds("not {}".format, inner.map("({})".format)),
        st.builds("({}) and {}".format, inner, inner.map("({})".format)),
        st.builds("{} or ({})".format, inner.map("({})".format), inner),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(where=EXPRESSIONS)
def test_expressions_agree_with_python(filters: Filters, where: str) -> None:
    rows = pa.Table.from_pylist(ROWS, SCHEMA.side_schema("item")).to_pylist()
    nothing = dict.fromkeys(rows[0])
    expected = [row["sku"] or 7 for row in (*rows, nothing) if truth(parse(where), row) is True]
    # the id itself is a column of the catalogue, which has none of the last item
    assert chosen(filters, where) == sorted(expected)


@pytest.mark.parametrize(
    ("where", "fragments"),
    [
        ("", ["at its end", "a column or a value is expected", "such as: genre in"]),
        ("genre", ["at its end", "a comparison is expected"]),
        ("genre = 'x'", ["write '==' instead of '='"]),
        ("year <> 3", ["write '!=' instead of '<>'"]),
        ("year > 1 && year < 3", ["write 'and' instead of '&&'"]),
        ("year > 1 AND year < 3", ["write 'and' instead of 'AND'"]),
        ("! year > 1", ["write 'not' instead of '!'"]),
        ("year is NULL", ["write 'None' instead of 'NULL'"]),
        ("year is 3", ["'None' is expected"]),
        ("year == None", ["a column or a value is expected"]),
        ("genre in 'x'", ["values in brackets"]),
        ("genre in ('x' 'y')", ["a ',' or a ')' is expected"]),
        ("genre in (genre)", ["a number or a text in quotes"]),
        ("genre in ('x'", ["at its end", "a ',' or a ')'"]),
        ("(year > 3", ["a ')' is expected"]),
        ("year > 3)", ["before ')'", "the end is expected"]),
        ("year > margin", ["compared with a number"]),
        ("3 > 4", ["a column is expected beside a value"]),
        ("genre == 'x", ["begins so"]),
        ("year == 12abc", ["begins so"]),
        ("year == 1e999", ["too large"]),
        (f"year == {'9' * 50}", ["more than 40 signs"]),
        ("lambda: 0", ["before ': 0'"]),
        ("__import__('os').system('true')", ["such as:"]),
        ("genre.__class__ == 'x'", [".__class__"]),
        ("year == 1; year == 2", ["before '; year == 2'"]),
        ("\x00\n", ["'\\x00\\n'"]),
        ("(" * 5000, ["nested more than 30 deep"]),
        ("not " * 2000 + "year == 1", ["nested more than 30 deep"]),
        (" or ".join(["year == 1"] * 101), ["more than 100 comparisons"]),
        ("x" * 10_001, ["10,001 signs", "at most 10,000", "allowed or forbidden"]),
        ("gnre == 'x'", ["no column 'gnre'", "genre (texts)", "words (several texts)", "year (nu"]),
        ("year == 'old'", [HOLDS.format("year", "numbers"), "'old' is a text", "year == "]),
        (
            "genre in ('a', 3)",
            [HOLDS.format("genre", "texts"), "3 is a number", "genre == 'Comedy'"],
        ),
        ("codes in ('a',)", [HOLDS.format("codes", "numbers"), "0 in codes"]),
        ("words < 'a'", ["'words'", "no order", "words in (...)"]),
        ("`unit price` == 'a'", ["'unit price'", "`unit price` == "]),
        (7, ["a filter is a text", "int"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(
    filters: Filters, where: Any, fragments: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        filters.mask(where=where)
    message = str(caught.value)
    assert all(fragment in message for fragment in fragments), message
    assert "\n" not in message and len(message) < 600


@settings(max_examples=200, deadline=None)
@given(where=st.text(alphabet="genryea <>=!()[],'\"`\\andort1.5eN\n", max_size=60))
def test_any_text_is_read_or_refused(filters: Filters, where: str) -> None:
    try:
        filters.mask(where=where)
    except DataError as error:
        assert "\n" not in str(error)


def test_a_bundle_without_a_catalogue_says_so() -> None:
    nothing = ItemCatalogue(None, SCHEMA, pa.array(IDS))
    filters = Filters(nothing, pa.int64(), len(IDS), lambda ids: np.zeros(0, dtype=int))
    with pytest.raises(DataError, match="no catalogue of items"):
        filters.mask(where="year > 1")
