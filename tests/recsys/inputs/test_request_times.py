"""Times of requests: whatever form they come in, beside the events they belong to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.inputs import History, Moment, Requests, Times

VOCABULARIES = {"item": Vocabulary(pa.array(["a", "b", "c"]))}
WHEN = Times(History("item", 3), "when")


def times(history: list[Any], when: list[Any] | None) -> Any:
    columns = {"history": history} if when is None else {"history": history, "when": when}
    return WHEN.from_requests(Requests(pa.table(columns), VOCABULARIES))


def moments(column: Any, history: list[Any], when: list[Any]) -> list[int]:
    """When requests with these events were made; None: they do not say."""
    table = pa.table({"history": history, "when": pa.array(when, pa.list_(pa.int64()))})
    table = table if column is None else table.append_column("time", column)
    return Moment(WHEN).from_requests(Requests(table, VOCABULARIES)).tolist()


def test_times_go_with_their_events() -> None:
    """Unknown items take theirs along, long histories lose the oldest, short ones end in 0."""
    found = times([["a", "?", "b"], ["a", "b", "c", "a"], []], [[5, 6, 7], [1, 2, 3, 4], []])
    assert found.tolist() == [[5, 7, 0], [2, 3, 4], [0, 0, 0]]


def test_timestamps_are_seconds() -> None:
    """With or without a time zone, to the second below."""
    asked = [datetime(1970, 1, 1, 1, 0, 0, 900_000), datetime(1970, 1, 2)]
    for kind in (pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.timestamp("ms")):
        zone = UTC if kind.tz else None
        whole = [one.replace(tzinfo=zone, microsecond=0) for one in asked]
        given = pa.array([whole], pa.list_(kind))
        assert times([["a", "b"]], given).tolist() == [[3600, 86400]]
        assert moments(pa.array(whole, kind), [["a"], []], [[1], []]) == [3600, 86400]
    given = pa.array(asked, pa.timestamp("us"))
    assert moments(given, [["a"], []], [[1], []]) == [3600, 86400]


def test_absent_times_are_those_of_the_last_event() -> None:
    events = [["a", "b", "?"], []], [[5, 9, 11], []]  # of those that are known
    assert moments(None, *events) == [9, 0]
    assert moments(pa.array([None, None], pa.int64()), *events) == [9, 0]
    assert moments(pa.array([20, None]), *events) == [20, 0]
    assert times([["a"], ["b", "c"]], None).tolist() == [[0, 0], [0, 0]]


def test_a_list_of_another_length_is_refused_by_its_row() -> None:
    with pytest.raises(DataError, match=r"request 1 has 1 values in 'when' and 2 in 'history'"):
        times([["a"], ["b", "c"]], [[1], [2]])


@pytest.mark.parametrize("when", [["soon"], [["soon"]]])
def test_what_is_no_time_is_refused_by_its_column(when: list[Any]) -> None:
    with pytest.raises(DataError, match="'when'"):
        times([["a"]], when)


def test_frames_of_pandas_are_read_alike() -> None:
    frame = pd.DataFrame({"time": pd.to_datetime([60, 120], unit="s")})
    column = pa.Table.from_pandas(frame, preserve_index=False).column("time")
    assert moments(column, [["a"], ["b"]], [[1], [2]]) == [60, 120]
