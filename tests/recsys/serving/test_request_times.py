"""Times of requests: whatever form they come in, beside the events they belong to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.serving.requests import moments_of, times_of

ITEMS = Vocabulary(pa.array(["a", "b", "c"]))


def times(history: list[Any], when: list[Any] | None, length: int = 3) -> Any:
    columns = {"history": history} if when is None else {"history": history, "when": when}
    return times_of(pa.table(columns), "history", "when", ITEMS, length)


def test_times_go_with_their_events() -> None:
    """Unknown items take theirs along, long histories lose the oldest, short ones end in 0."""
    found = times([["a", "?", "b"], ["a", "b", "c", "a"], []], [[5, 6, 7], [1, 2, 3, 4], []])
    assert found.tolist() == [[5, 7, 0], [2, 3, 4], [0, 0, 0]]


def test_timestamps_are_seconds() -> None:
    """With or without a time zone, to the second below."""
    moments = [datetime(1970, 1, 1, 1, 0, 0, 900_000), datetime(1970, 1, 2)]
    for kind in (pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.timestamp("ms")):
        zone = UTC if kind.tz else None
        whole = [one.replace(tzinfo=zone, microsecond=0) for one in moments]
        given = pa.array([whole], pa.list_(kind))
        assert times([["a", "b"]], given).tolist() == [[3600, 86400]]
        table = pa.table({"time": pa.array(whole, kind)})
        assert moments_of(table, "time", torch.zeros(2, 1).long()).tolist() == [3600, 86400]
    table = pa.table({"time": pa.array(moments, pa.timestamp("us"))})
    assert moments_of(table, "time", torch.zeros(2, 1).long()).tolist() == [3600, 86400]


def test_absent_times_are_those_of_the_last_event() -> None:
    known = torch.tensor([[5, 9, 0], [0, 0, 0]])
    for table in (
        pa.table({"history": [["a", "b"], []]}),
        pa.table({"time": pa.array([None, None], pa.int64())}),
    ):
        assert moments_of(table, "time", known).tolist() == [9, 0]
    assert moments_of(pa.table({"time": [20, None]}), "time", known).tolist() == [20, 0]
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
    table = pa.Table.from_pandas(frame, preserve_index=False)
    assert moments_of(table, "time", torch.zeros(2, 1).long()).tolist() == [60, 120]
