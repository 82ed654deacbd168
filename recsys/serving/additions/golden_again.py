"""Golden requests of a bundle that has got further items."""

from __future__ import annotations

from itertools import compress
from typing import Any

import pyarrow as pa

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES, HISTORY
from feature_store.errors import DataError
from recsys.serving.golden import same_list
from recsys.serving.recommender import Recommender


def answered_again(recommender: Recommender, known: int) -> pa.Table:
    """The golden requests with the answers of a bundle that finds further items behind those that
    were `known`; those that the fallback answers stay as they are.

    Raises DataError where known items are answered otherwise than before.
    """
    golden = recommender.finder.golden()
    requests = golden.filter(golden.column(HISTORY).is_valid())
    unasked = golden.filter(golden.column(HISTORY).is_null())
    before = requests.column(EXPECTED_ITEMS).to_pylist()
    scores_before = requests.column(EXPECTED_SCORES).to_pylist()
    asked, seen = recommender.asked_of(requests)
    listed = recommender.finder.find_exactly(asked, max(map(len, before)), seen)
    items: list[list[Any]] = []
    scores: list[list[Any]] = []
    for row, (ids, values) in enumerate(zip(before, scores_before, strict=True)):
        kept = listed.places[row] >= 0
        places = listed.places[row][kept]
        answer = recommender.finder.item_ids.take(pa.array(places.numpy()))
        items.append(answer.to_pylist())
        scores.append(listed.scores[row][kept].tolist())
        old = (places < known).tolist()
        those = list(compress(items[-1], old))
        now = list(compress(scores[-1], old))
        if not same_list(ids[: len(those)], values[: len(those)], those, now):
            raise DataError(
                f"{recommender.bundle.folder}: with further items golden request {row} answers "
                f"{those[:5]}... of those that were known, before it was {ids[:5]}...: export again"
            )
    answered = _with(_with(requests, EXPECTED_ITEMS, items), EXPECTED_SCORES, scores)
    return pa.concat_tables([answered, unasked])


def _with(table: pa.Table, column: str, values: list[list[Any]]) -> pa.Table:
    field = table.schema.field(column)
    place = table.column_names.index(column)
    return table.set_column(place, field, pa.array(values, field.type))
