"""Whatever stands in a catalogue becomes a short visible line, or is absent."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys.text.cleaning import LONGEST, clean, clean_bags, clean_column

# what hurts, mixed with letters, more often than chance would bring it
NASTY = st.lists(
    st.sampled_from(
        [
            *("&amp;", "&amp;amp;lt;", "&", ";", "&#0;", "&#xD800;", "&#8238;", "amp", "&nbsp;"),
            *("\x00", "\n", "\t", "\x1b[31m", "\x85", "\u2028", "\u00a0", "\u200b", "\u202e"),
            *("\ufeff", "\u00ad", "\ufffd", "\ud800", "\udfff", "\U000e0041"),
            *("\U0001f469\u200d\U0001f680", "\u05e9\u05dc\u05d5\u05dd", "e\u0301", "a", " "),
        ]
    )
    | st.text(st.characters(exclude_categories=[]), max_size=3),  # surrogates too
    max_size=30,
).map("".join)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        (" \t\r\n ", ""),
        ("\x00\x1b\x7f", ""),
        ("Tea &amp; Coffee", "Tea & Coffee"),
        ("L&amp;amp;Oacute;real &#39;24&quot;", "L\u00d3real '24\""),
        ("black&current &unknown; AT&T", "black&current &unknown; AT&T"),
        ("&am\u200bp;", "&"),  # what is unseen parts no entity
        ("&#8238;gnp.exe", "gnp.exe"),
        ("so\u00adlid \u202egold\u202c\ufeff", "solid gold"),
        ("two\nlines\x00and\u2028three", "two lines and three"),
        ("half \ud83d of one", "half of one"),
        ("\U0001f469\u200d\U0001f680 ok", "\U0001f469\u200d\U0001f680 ok"),
        (
            "\u0634\u0627\u0645\u067e\u0648 \u05e9\u05dc\u05d5\u05dd",
            "\u0634\u0627\u0645\u067e\u0648 \u05e9\u05dc\u05d5\u05dd",
        ),
        ("x" * 100_000, "x" * LONGEST),
        (" " * 100_000 + "late", ""),
    ],
)
def test_rules(raw: str, expected: str) -> None:
    assert clean(raw) == expected


@given(NASTY)
@example("&amp;" + "amp;" * 1000)
def test_what_is_left_is_visible_whole_and_stays_as_it_is(raw: str) -> None:
    text = clean(raw)
    assert clean(text) == text
    assert text == " ".join(text.split()) and len(text) <= min(len(raw), LONGEST)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
    assert not set(text) & set("\ufffd\u200b\u202e\ufeff\u00ad")
    text.encode()


@given(st.lists(st.none() | NASTY.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_columns_are_cleaned_value_by_value_even_where_they_are_no_utf8(
    raw: list[bytes | None],
) -> None:
    column = pa.array(raw, pa.large_binary()).view(pa.large_string())
    expected = [v if v is None else clean(v.decode("utf-8", "replace")) or None for v in raw]
    assert clean_column(column).to_pylist() == expected
    halves = pa.chunked_array([column[: len(raw) // 2], column[len(raw) // 2 :]])
    assert clean_column(halves).to_pylist() == expected


def test_bags_are_their_values_parted_by_commas() -> None:
    bags = pa.array([["a &amp; b", None, "\x00", "c"], [], None, [None], ["c"]])
    assert clean_bags(bags).to_pylist() == ["a & b, c", None, None, None, "c"]
    assert clean_bags(bags[3:]).to_pylist() == [None, "c"]
    (text,) = clean_bags(pa.array([["word"] * 100_000])).to_pylist()
    assert len(text) <= LONGEST and text.startswith("word, word")
