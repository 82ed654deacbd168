"""Numbers beside those of their list, by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from feature_store.in_lists import in_lists

NAN = np.nan
# list, price, events since the item was touched; the rows of lists need not lie together
ROWS = [
    (7, 10.0, 0),
    (3, 20.0, 4),
    (7, 30.0, 5),
    (3, 5.0, 0),
    (7, 10.0, 2),
    (7, NAN, 0),
    (0, 8.0, 1),  # shown in no list
    (9, 6.0, 0),  # alone, and nothing touched
    (7, 40.0, 2),  # touched as late as another: the lower number counts
]
# of the five of list 7 whose price is known: two at the foot share the places 0 and 1
RANK = [0.5 / 3, 1.0, 2 / 3, 0.0, 0.5 / 3, NAN, NAN, 0.5, 1.0]
LAST = [0, 0, log(31 / 11), log(6 / 21), 0, NAN, NAN, NAN, log(41 / 11)]


def test_a_number_has_a_rank_among_its_list_and_a_distance_from_what_was_touched_last() -> None:
    lists, prices, touched = (np.array(column) for column in zip(*ROWS, strict=True))
    told = in_lists("price", prices, lists, touched)
    assert {name: column.dtype for name, column in told.items()} == {
        "price#rank": np.float32,
        "price#last": np.float32,
    }
    assert told["price#rank"] == pytest.approx(RANK, nan_ok=True)
    assert told["price#last"] == pytest.approx(LAST, nan_ok=True, abs=1e-6)
    back = in_lists("price", prices[::-1], lists[::-1], touched[::-1])  # in whatever order
    assert all(back[name][::-1].tolist() == pytest.approx(told[name], nan_ok=True) for name in told)
    below = in_lists("price", -prices, lists, np.where(touched == 2, [*[0] * 8, 2], touched))
    assert below["price#last"][[0, 8]] == pytest.approx([log(41 / 11), 0])  # they have logs, too
    assert all(len(column) == 0 for column in in_lists("price", *(np.zeros((3, 0)))).values())
