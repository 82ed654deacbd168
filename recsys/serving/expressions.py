"""Expressions over columns, written as in Python and read by a parser of our own: nothing is run.

    genre in ("Comedy", "Drama") and not year < 1990
    "dry" in words or 3 <= price < 10 or title is None

    any    = all {"or" all}
    all    = single {"and" single}
    single = "not" single | "(" any ")" | chain
    chain  = column "is" ["not"] "None" | term ["not"] "in" term | term {sign term}

A term is a column, a value (a number, or a text in quotes) or values in brackets; a column whose
name is no word stands in backticks. A sign compares a column with a value, in either order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

from feature_store.errors import DataError

Value = int | float | str
Sign = Literal["<", "<=", ">", ">="]

EXAMPLE = 'genre in ("Comedy", "Drama") and not year < 1990'
_LENGTH, _DEPTH, _PARTS, _DIGITS = 10_000, 30, 100, 40
_SHOWN = 60  # signs of an expression, or of a word of it, that an error repeats


@dataclass(frozen=True)
class Among:
    """The column is one of the values, or holds one of them."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Compared:
    """The column stands so to the value."""

    column: str
    sign: Sign
    value: Value


@dataclass(frozen=True)
class Missing:
    """Nothing is known of the column."""

    column: str


@dataclass(frozen=True)
class Not:
    """The opposite."""

    of: Expression


@dataclass(frozen=True)
class AllOf:
    """Every one of them."""

    of: tuple[Expression, ...]


@dataclass(frozen=True)
class AnyOf:
    """At least one of them."""

    of: tuple[Expression, ...]


Expression = Among | Compared | Missing | Not | AllOf | AnyOf


def parse(text: str) -> Expression:
    """Read an expression.

    Raises DataError, in one line, saying at which sign it cannot be read and why; also for one that
    is too long, too deep, or made of too many comparisons.
    """
    if not isinstance(text, str):
        raise DataError(f"a filter is a text such as {EXAMPLE}, not {type(text).__name__}")
    if len(text) > _LENGTH:
        raise DataError(
            f"a filter of {len(text):,} signs: at most {_LENGTH:,} are read; give ids as a list of "
            "allowed or forbidden ones"
        )
    return _Parser(text).whole()


def written(column: str) -> str:
    """How an expression names a column."""
    plain = re.fullmatch(r"[^\W\d]\w*", column) and column not in (*_WORDS, *_MEANT)
    return column if plain else f"`{column}`"


def shown(text: str) -> str:
    """A stranger's text as one line of an error: in quotes, escaped, cut where it is long."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


class _Token(NamedTuple):
    kind: Literal["word", "column", "value", "sign", "end"]
    value: Value
    at: int


_TOKEN = re.compile(
    r"""(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[^\W\d]\w*)"""
    r"""|`(?P<column>[^`]+)`"""
    r"""|(?P<sign>==|!=|<>|<=|>=|&&|\|\||[<>=!&|()\[\],])""",
    re.DOTALL,
)
_BLANK = re.compile(r"\s*")
_WORDS = ("and", "or", "not", "in", "is", "None")
_MEANT = {
    **{"=": "==", "<>": "!=", "&": "and", "&&": "and", "|": "or", "||": "or", "!": "not"},
    **{"AND": "and", "OR": "or", "NOT": "not", "IN": "in", "IS": "is"},
    **{"NULL": "None", "null": "None", "none": "None"},
}
_TURNED: dict[str, str] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_CLOSING = {"(": ")", "[": "]"}

_Term = _Token | tuple[Value, ...]


class _Parser:
    """Goes through the tokens once, from the left."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._read())
        self._place = 0
        self._depth = 0
        self._parts = 0

    def whole(self) -> Expression:
        """All of the text."""
        expression = self._any()
        if self._next.kind != "end":
            self._refuse("'and', 'or', or the end is expected")
        return expression

    def _read(self) -> Iterator[_Token]:
        at = _blanks(self._text, 0)
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                self._refuse("no word, number, or text in quotes begins so", at)
            kind, written = match.lastgroup, match[match.lastgroup or 0]
            if kind == "number":
                yield _Token("value", self._number(written, at), at)
            elif kind == "text":
                yield _Token("value", re.sub(r"\\(.)", r"\1", written[1:-1], flags=re.DOTALL), at)
            else:
                yield _Token(kind, written, at)  # type: ignore[arg-type]
            at = _blanks(self._text, match.end())
        yield _Token("end", "", at)

    def _number(self, written: str, at: int) -> int | float:
        if len(written) > _DIGITS:
            self._refuse(f"a number of more than {_DIGITS} signs", at)
        if re.fullmatch(r"[+-]?[0-9]+", written):
            return int(written)
        number = float(written)
        if not math.isfinite(number):
            self._refuse("the number is too large", at)
        return number

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, *expected: str) -> str | None:
        """The next word or sign, if it is one of those that are expected."""
        token = self._next
        if token.kind not in ("word", "sign") or token.value not in expected:
            return None
        self._place += 1
        return str(token.value)

    def _any(self) -> Expression:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all(self) -> Expression:
        parts = [self._single()]
        while self._take("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _single(self) -> Expression:
        self._depth += 1
        if self._depth > _DEPTH:
            self._refuse(f"brackets and 'not' are nested more than {_DEPTH} deep")
        if self._take("not"):
            expression: Expression = Not(self._single())
        elif self._opens_expression():
            self._take("(")
            expression = self._any()
            if not self._take(")"):
                self._refuse("a ')' is expected")
        else:
            expression = self._chain()
        self._depth -= 1
        return expression

    def _opens_expression(self) -> bool:
        """Whether a bracket opens, and not one around values alone."""
        if self._next.kind != "sign" or self._next.value != "(":
            return False
        return self._tokens[self._place + 1].kind != "value" or (
            self._tokens[self._place + 2].value not in (",", ")")
            or self._tokens[self._place + 2].kind != "sign"
        )

    def _chain(self) -> Expression:
        left = self._term()
        if self._take("is"):
            denied = self._take("not")
            if not self._take("None"):
                self._refuse("'None' is expected: other values are compared by '=='")
            missing = Missing(self._column(left))
            self._count()
            return Not(missing) if denied else missing
        if self._take("in"):
            return self._among(left, self._term())
        if self._next.value == "not" and self._next.kind == "word":
            self._take("not")
            if not self._take("in"):
                self._refuse("'in' is expected")
            return Not(self._among(left, self._term()))
        parts = []
        while sign := self._take(*_TURNED):
            right = self._term()
            parts.append(self._compared(left, sign, right))
            left = right
        if not parts:
            self._refuse("a comparison is expected, such as == or in")
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _term(self) -> _Term:
        token = self._next
        if opening := self._take("(", "["):
            values: list[Value] = []
            while not self._take(_CLOSING[opening]):
                if values and not self._take(","):
                    self._refuse(f"a ',' or a '{_CLOSING[opening]}' is expected")
                if values and self._take(_CLOSING[opening]):  # a comma may stand at the end
                    break
                if self._next.kind != "value":
                    self._refuse("a number or a text in quotes is expected")
                values.append(self._next.value)
                self._place += 1
            return tuple(values)
        if token.kind == "word" and (token.value in _WORDS or token.value in _MEANT):
            self._refuse("a column or a value is expected")
        if token.kind not in ("word", "column", "value"):
            self._refuse("a column or a value is expected")
        self._place += 1
        return token

    def _among(self, left: _Term, right: _Term) -> Expression:
        self._count()
        if not isinstance(right, _Token):
            return Among(self._column(left), right)
        if isinstance(left, _Token) and left.kind == "value":  # "dry" in words
            return Among(self._column(right), (left.value,))
        self._refuse("'in' is followed by values in brackets")

    def _compared(self, left: _Term, sign: str, right: _Term) -> Expression:
        self._count()
        if isinstance(left, _Token) and left.kind == "value":
            left, sign, right = right, _TURNED[sign], left
        column = self._column(left)
        if not isinstance(right, _Token) or right.kind != "value":
            self._refuse("a column is compared with a number, or with a text in quotes")
        if sign in ("==", "!="):
            same = Among(column, (right.value,))
            return same if sign == "==" else Not(same)
        return Compared(column, sign, right.value)  # type: ignore[arg-type]

    def _column(self, term: _Term) -> str:
        if isinstance(term, _Token) and term.kind in ("word", "column"):
            return str(term.value)
        self._refuse("a column is expected beside a value")

    def _count(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            self._refuse(f"more than {_PARTS} comparisons")

    def _refuse(self, why: str, at: int | None = None) -> NoReturn:
        """Raises DataError with the sign that is next, or the one `at` a place."""
        if at is None:
            token = self._next
            at = token.at
            if token.kind in ("word", "sign") and token.value in _MEANT:
                why = f"write '{_MEANT[str(token.value)]}' instead of '{token.value}'"
        place = f"before {shown(self._text[at:])}" if at < len(self._text) else "at its end"
        raise DataError(
            f"filter {shown(self._text)} cannot be read {place}: {why}; such as: {EXAMPLE}"
        )


def _blanks(text: str, at: int) -> int:
    """Where the next token begins."""
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]
