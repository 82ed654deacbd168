"""Lines of JSON and of lists: exact rows and lines, whatever the blocks, and the rest named."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from feature_store.errors import DataError
from feature_store.sources.lines import read_lists, read_records


class Row(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str
    tags: list[int] = []


def lists(content: bytes, **options) -> tuple[list[tuple], list[tuple]]:
    rows, bad = [], []
    for chunk in read_lists(io.BytesIO(content), "f", **options):
        values = (chunk.table[name].to_pylist() for name in ("user_id", "item_id", "place"))
        rows += zip(chunk.lines.tolist(), *values, strict=True)
        bad += [(b.line, b.column, b.reason, b.raw) for b in chunk.bad]
    return rows, bad


def records(content: bytes, **options) -> tuple[dict[int, dict], list[tuple]]:
    rows, bad = {}, []
    for chunk in read_records(io.BytesIO(content), "f", Row, **options):
        rows.update(zip(chunk.lines.tolist(), chunk.table.to_pylist(), strict=True))
        bad += [(b.line, b.column, b.reason, b.value) for b in chunk.bad]
    return rows, bad


def test_lists() -> None:
    rows, bad = lists(
        b"\xef\xbb\xbf# user items\r\n1 7\t8 \r\n\r\n 2\r\n  \n-3  9\nnine\n4 \xff\n5 6"
    )
    assert rows == [(2, "1", "7", 1), (2, "1", "8", 2), (6, "-3", "9", 1), (9, "5", "6", 1)]
    assert bad == [
        (7, "user_id", "is not an integer", "nine"),
        (8, "", "is not utf-8", "4 \\xff"),
    ]
    assert lists(b"nine\n", integers=False) == ([], [])


@given(
    st.lists(st.lists(st.integers(0, 999), max_size=5), min_size=1, max_size=30),
    st.integers(20, 400),
)
def test_lists_do_not_depend_on_the_blocks(items: list[list[int]], block: int) -> None:
    content = "".join(
        " ".join(map(str, [user, *own])) + "\n" for user, own in enumerate(items, start=1)
    )
    expected = [
        (user, str(user), str(item), place)
        for user, own in enumerate(items, start=1)
        for place, item in enumerate(own, start=1)
    ]
    assert lists(content.encode(), block_bytes=block) == (expected, [])


def test_records() -> None:
    rows, bad = records(
        b'{"name": "a\\u00e9", "tags": [1], "more": null}\r\n'
        b"\n"
        b"{'name': 'it\\'s \\d', 'tags': [2, 3], 'more': None}\n"  # a Python literal
        b'{"name": "cut of\n'
        b'{"name": 5}\n'
        b'{"tags": []}\n'
        b'{"name": "x", "tags": [1, "2"]}\n'
        b'["name"]\n'
        b'{"name": "\\ud83d"}\n'
        b'{"name": "whole \\ud83d\\ude00"}\n'
        b"__import__('os').getcwd()\n"
        b"{'name': __import__('os').getcwd()}\n"
        b'{"name": "\xff"}\n' + b'{"name": ' + b"[" * 100_000 + b"\n" + b'{"name": "last"}'
    )
    assert rows == {
        1: {"name": "a\u00e9", "tags": [1]},
        3: {"name": "it's \\d", "tags": [2, 3]},
        10: {"name": "whole \U0001f600", "tags": []},
        15: {"name": "last", "tags": []},
    }
    no_object = ("", "is not a JSON object", "")
    assert bad == [
        (4, *no_object),
        (5, "name", "should be a valid string", "5"),
        (6, "name", "is absent", ""),
        (7, "tags", "should be a valid integer", "2"),
        (8, *no_object),
        (9, "", "holds half of a surrogate pair", ""),
        (11, *no_object),
        (12, *no_object),
        (13, "", "is not utf-8", ""),
        (14, *no_object),
    ]


def test_a_record_of_more_than_the_limit_is_named_before_a_parser_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("feature_store.sources.lines._LONGEST_RECORD", 30)
    monkeypatch.setattr("feature_store.sources.lines._RECORDS", 2)
    long = b'{"name": "' + b"x" * 40 + b'"}\n'
    rows, bad = records(b'{"name": "a"}\n' * 3 + long + b'{"name": "b"}\n')
    assert {line: row["name"] for line, row in rows.items()} == {1: "a", 2: "a", 3: "a", 5: "b"}
    assert [(line, reason) for line, _, reason, _ in bad] == [
        (4, "is a record of more than 30 characters")
    ]


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=8))
def test_of_any_bytes_every_line_is_a_row_or_bad_or_blank(noise: list[bytes]) -> None:
    good = json.dumps({"name": "x"}).encode()
    content = b"\n".join([good, *noise, good])
    rows, bad = records(content, block_bytes=40)
    blank = sum(not line.decode("utf-8", "replace").strip() for line in noise)
    assert len(rows) + len(bad) + blank == len(noise) + 2
    assert rows[1] == rows[len(noise) + 2] == {"name": "x", "tags": []}


def test_an_empty_file_is_an_error() -> None:
    for read in (lists, records):
        with pytest.raises(DataError, match="f: the file is empty"):
            read(b"")
