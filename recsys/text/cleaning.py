"""Raw texts -> what a tokenizer is given: short, visible, on one line."""

from __future__ import annotations

import html
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 4096  # characters that are read of one value
# Nothing is seen of these, and some make what is seen another text: soft hyphens, spaces without
# width, marks and overrides of direction, marks of byte order, tags. Not the joiners, of which
# emoji and words of some scripts are made.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
# Only those that end as they should: `html.unescape` by itself takes `black&current` for `black¤t`.
_ENTITY = re.compile("&(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,8}|#[xX][0-9A-Fa-f]{1,8});")
# Controls, halves of characters, and the sign for what could not be decoded part words.
_PARTING = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


def clean(text: str) -> str:
    """A text without what hurts; empty where nothing is left.

    The first `LONGEST` characters are read. HTML entities become what they stand for, also those
    that were escaped more than once; what is unseen goes; control characters, lone surrogates and
    U+FFFD become spaces; runs of white space become one space, and none is left at the ends. Emoji
    and scripts of either direction stay as they are. Cleaning a clean text changes nothing.
    """
    text, before = text[:LONGEST], ""
    while text != before:  # what goes may have parted an entity, which may stand for what goes
        before = text
        plain = _UNSEEN.sub("", _ENTITY.sub(_stands_for, text))
        text = " ".join(_PARTING.sub(" ", plain).split())
    return text


def _stands_for(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


def clean_column(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Clean texts [N] of strings; null where nothing is left. Bytes that are no UTF-8 are U+FFFD.

    A value that occurs often is cleaned once.
    """
    column = column.cast(pa.large_binary())  # of any size, and not said to be UTF-8
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    coded = column.dictionary_encode()
    cleaned = [clean(value.as_py().decode("utf-8", "replace")) for value in coded.dictionary]
    values = pa.array([text or None for text in cleaned], pa.large_string())
    return values.take(coded.indices)


def clean_bags(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts [N] of lists of strings: their clean values, parted by commas; null where none is
    left."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values = clean_column(column.flatten()).to_pylist()
    ends = np.cumsum(pc.list_value_length(column).fill_null(0).to_numpy())
    starts = np.concatenate([[0], ends])[:-1]
    texts = [
        ", ".join(filter(None, values[start:end]))[:LONGEST].strip() or None
        for start, end in zip(starts, ends, strict=True)
    ]
    return pa.array(texts, pa.large_string())
