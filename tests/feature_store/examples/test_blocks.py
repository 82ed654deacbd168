"""Rows in a stream: blocks of whole users, and lists of a user's earlier events."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.columns import (
    HISTORY,
    HISTORY_TIME,
    ITEM_ROW,
    LABEL,
    POSITION,
    ROLE,
    SECONDS,
    TARGET,
    TIME,
    USER_ROW,
)
from feature_store.examples.blocks import Block, blocks_of_users, spans
from feature_store.examples.rows import event_rows, request_rows, sequence_rows
from feature_store.examples.spec import RowsOf
from feature_store.schema import Feature, Schema

SCHEMA = Schema(
    user="u",
    item="i",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
    ),
)
Log = list[tuple[int, int]]  # (user, second) of each event, in the order of the log

# few users and few seconds: nearly every log holds ties
logs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=25)
cuts = st.integers(1, 7)  # rows of a batch


def sorted_rows(log: Log) -> pa.RecordBatch:
    """Events whose item is 100 + position, so that items say which event they came from; every
    third has no label."""
    order = sorted(range(len(log)), key=lambda p: (*log[p], p))
    return pa.RecordBatch.from_pydict(
        {
            USER_ROW: [log[p][0] for p in order],
            ITEM_ROW: [100 + p for p in order],
            SECONDS: [log[p][1] for p in order],
            POSITION: order,
            ROLE: ["train"] * len(order),
            LABEL: pa.array([float(p % 3 == 1) if p % 3 else None for p in order], pa.float32()),
        }
    )


def blocks(log: Log, size: int) -> list[Block]:
    rows = sorted_rows(log)
    batches = [rows.slice(at, size) for at in range(0, rows.num_rows, size)]
    return list(blocks_of_users(batches, USER_ROW))


def earlier(log: Log, position: int, *, ties: bool) -> list[int]:
    """Positions of the same user's earlier events, in (time, position) order."""
    user, second = log[position]
    before = [
        (t, p)
        for p, (u, t) in enumerate(log)
        if u == user and ((t, p) < (second, position) if ties else t < second)
    ]
    return [p for _, p in sorted(before)]


@settings(max_examples=100, deadline=None)
@given(logs, cuts)
def test_blocks_hold_whole_users_and_all_rows(log: Log, size: int) -> None:
    found = blocks(log, size)
    assert pa.concat_tables([block.rows for block in found]).to_pylist() == (
        sorted_rows(log).to_pylist()
    )
    users = [
        block.column(USER_ROW)[a:b].tolist()
        for block in found
        for a, b in zip(block.starts, block.starts[1:], strict=False)
    ]
    expected = [list(rows) for _, rows in groupby(sorted(user for user, _ in log))]
    assert users == expected


@pytest.mark.parametrize("labels", [False, True])
@settings(max_examples=60, deadline=None)
@given(logs, cuts, st.integers(1, 5))
def test_a_history_is_the_last_events_strictly_before(
    labels: bool, log: Log, size: int, length: int
) -> None:
    """Where labels are trained, events of the same second are nobody's history, and those without
    a label are nobody's question."""
    rows_of = RowsOf(per="event", labels=labels)
    rows = [
        row
        for block in blocks(log, size)
        for row in event_rows(
            block, SCHEMA, rows_of, (), asked=("train",), shown=("train",), length=length
        ).to_pylist()
    ]
    asked = [p for p in range(len(log)) if p % 3 or not labels]
    assert sorted(row[POSITION] for row in rows) == asked
    for row in rows:
        expected = earlier(log, row[POSITION], ties=not labels)[-length:]
        assert row[HISTORY] == [100 + p for p in expected]
        assert row[HISTORY_TIME] == [log[p][1] for p in expected]
        assert row["i" if labels else TARGET] == 100 + row[POSITION]
        assert row[TIME] == log[row[POSITION]][1]


@settings(max_examples=60, deadline=None)
@given(logs, cuts)
def test_sequences_follow_time_then_position(log: Log, size: int) -> None:
    found = {
        row["u"]: row[HISTORY]
        for block in blocks(log, size)
        for row in sequence_rows(block, SCHEMA, RowsOf(), ("train",), None).to_pylist()
    }
    expected = {
        user: [100 + p for _, p in sorted((t, p) for p, (u, t) in enumerate(log) if u == user)]
        for user in {u for u, _ in log}
    }
    assert found == {user: items for user, items in expected.items() if len(items) > 1}


@settings(max_examples=60, deadline=None)
@given(logs, st.integers(0, 4), st.integers(1, 3))
def test_sequences_of_a_window_begin_with_what_led_to_it(log: Log, since: int, lead: int) -> None:
    found = {
        row["u"]: row[HISTORY]
        for block in blocks(log, 25)
        for row in sequence_rows(block, SCHEMA, RowsOf(), ("train",), since, lead).to_pylist()
    }
    expected = {}
    for user in {u for u, _ in log}:
        own = sorted((t, 100 + p) for p, (u, t) in enumerate(log) if u == user)
        before = sum(t < since for t, _ in own)
        if before < len(own):
            expected[user] = [item for _, item in own[max(0, before - lead) :]]
    assert found == {user: items for user, items in expected.items() if len(items) > 1}


def test_spans_are_slices_that_may_overlap_or_be_empty() -> None:
    found = spans(pa.array(list("abcd")), np.array([0, 1, 2, 4]), np.array([2, 4, 2, 4]))
    assert found.to_pylist() == [["a", "b"], ["b", "c", "d"], [], []]


def test_no_rows_make_one_empty_block_with_all_columns() -> None:
    (block,) = blocks_of_users([sorted_rows([(0, 0)]).slice(0, 0)], USER_ROW)
    assert block.rows.num_rows == 0 and block.starts.tolist() == [0]
    for rows in (
        sequence_rows(block, SCHEMA, RowsOf(), ("train",), 3),
        request_rows(block, SCHEMA, RowsOf(), "test"),
    ):
        assert rows.num_rows == 0 and HISTORY in rows.column_names
