"""Rows of events that were shown in lists: what was known before the list, and what is not of it.

The truth is written down by hand: one user, whose items say their place in the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from feature_store.columns import (
    HISTORY,
    ITEM_ROW,
    LABEL,
    LAST_PLACE,
    LAST_TOUCHED,
    LIST,
    LIST_PLACE,
    POSITION,
    ROLE,
    SECONDS,
    USER_ROW,
)
from feature_store.errors import ConfigError
from feature_store.examples import write_examples
from feature_store.examples.blocks import Block
from feature_store.examples.rows import event_rows
from feature_store.examples.spec import RowsOf
from feature_store.labels import NegativesConfig
from feature_store.negatives import DrawnNegatives
from feature_store.schema import Feature, Schema

SCHEMA = Schema(
    user="u",
    item="i",
    label="clicked",
    list="page",
    place="place",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
        Feature(name="clicked", kind="dense", side="context", dtype="float32"),
        Feature(name="page", kind="id", side="context", dtype="int64"),
        Feature(name="place", kind="dense", side="context", dtype="float32"),
    ),
)
# second, list, place, label: two pages, the second of which lasts a while, and looks between
EVENTS: list[tuple[int, int, float, float]] = [
    (0, 0, np.nan, np.nan),
    (10, 5, 1, 0),
    (10, 5, 2, 1),
    (10, 0, np.nan, np.nan),
    (14, 0, np.nan, np.nan),
    (14, 6, 1, 1),
    (30, 6, 2, 0),
    (30, 0, np.nan, 1),
]


def rows(
    delay: int = 0, negatives: DrawnNegatives | None = None, items: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    seconds, pages, places, labels = zip(*EVENTS, strict=True)
    count = len(EVENTS)
    columns = {
        USER_ROW: [1] * count,
        ITEM_ROW: items or list(range(1, count + 1)),
        SECONDS: list(seconds),
        POSITION: list(range(count)),
        ROLE: ["train"] * count,
        LABEL: pa.array(labels, pa.float32()),
        LIST: list(pages),
        "place": pa.array(places, pa.float32()),
    }
    block = Block(pa.table(columns).combine_chunks(), np.array([0, count]))
    of_train = {"asked": ("train",), "shown": ("train",), "length": 50}
    rows_of = RowsOf(per="event", labels=True, compared=("place",))
    return event_rows(
        block, SCHEMA, rows_of, ("place",), **of_train, delay=delay, negatives=negatives
    ).to_pylist()


@pytest.mark.parametrize(
    ("delay", "histories"),
    [
        # the order of the log within a second; a page knows nothing of itself, however long it is
        (0, {5: [1], 6: [1, 2, 3, 4, 5], 0: [1, 2, 3, 4, 5, 6]}),
        (4, {5: [1], 6: [1, 2, 3, 4], 0: [1, 2, 3, 4, 5, 6]}),
        (5, {5: [1], 6: [1], 0: [1, 2, 3, 4, 5, 6]}),
        (17, {5: [], 6: [], 0: [1, 2, 3, 4]}),
    ],
)
def test_a_list_is_asked_about_with_what_was_known_before_its_first_row(
    delay: int, histories: dict[int, list[int]]
) -> None:
    made = rows(delay)
    assert [row["i"] for row in made] == [2, 3, 6, 7, 8]
    assert {row[LIST]: row[HISTORY] for row in made} == histories
    assert all(row[HISTORY] == histories[row[LIST]] for row in made)


def test_drawn_items_were_shown_in_no_list_and_no_place() -> None:
    items = np.arange(1, 12)
    negatives = DrawnNegatives(
        NegativesConfig(per_positive=2),
        user_keys=np.arange(2),
        item_keys=np.arange(12),
        items=items,
        first=np.full(11, -1),
        events=np.ones(11),
    )
    made = rows(negatives=negatives)
    own = [row for row in made if row["i"] <= len(EVENTS)]
    drawn = [row for row in made if row["i"] > len(EVENTS)]
    assert [(row["i"], row[LIST]) for row in own] == [(2, 5), (3, 5), (6, 6), (7, 6), (8, 0)]
    assert [row["place"] for row in own[:4]] == [1, 2, 1, 2]
    assert len(drawn) == 6
    of_lists = (LIST, LIST_PLACE, LAST_PLACE, LAST_TOUCHED)
    assert {tuple(row[name] for name in of_lists) for row in drawn} == {(0, 0, 0, 0)}
    assert all(np.isnan(row[name]) for row in drawn for name in ("place", "place#rank"))
    assert [row["place#rank"] for row in own[:4]] == [0, 1, 0, 1]


def test_what_is_compared_are_numbers_of_events_in_lists(tmp_path: Path) -> None:
    for schema, name, reason in (
        (SCHEMA, "page", "page is none; the log has: clicked, place"),
        (SCHEMA.model_copy(update={"list": None}), "place", "the log has no lists"),
    ):
        split = Mock(schema=schema)
        rows_of = RowsOf(per="event", labels=True, compared=(name,))
        with pytest.raises(ConfigError, match=reason):
            write_examples(Mock(), split, Mock(), tmp_path / "e", rows_of=rows_of)


def test_rows_say_where_they_stood_and_when_their_item_was_touched() -> None:
    """Touched is what was chosen, or looked at in whatever way that has no label, before the list;
    what was shown and passed over is not, nor what another user did."""
    made = rows(items=[3, 2, 4, 2, 5, 4, 2, 5])
    of_lists = (LIST, LIST_PLACE, LAST_TOUCHED, LAST_PLACE)
    assert [(row["i"], *(row[name] for name in of_lists)) for row in made] == [
        (2, 5, 1, 0, 0),  # passed over here, looked at in the same second, but after the list
        (4, 5, 2, 0, 0),
        (4, 6, 1, 3, 2),  # chosen three events before the list, and item 2 was touched since
        (2, 6, 2, 2, 2),
        (5, 0, 0, 2, 0),  # looked at two events before the first of its second
    ]
    passed_over = rows(items=[3, 2, 4, 6, 5, 4, 2, 5])[3]
    assert (passed_over["i"], passed_over[LAST_TOUCHED]) == (2, 0)
    assert [row[LAST_TOUCHED] for row in rows(17, items=[2, 2, 4, 2, 5, 4, 2, 4])][-1] == 2
