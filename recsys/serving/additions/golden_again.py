"""Golden requests of a bundle that has got further items."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES, HISTORY
from feature_store.errors import DataError
from recsys.serving.golden import same_list
from recsys.serving.recommender import Recommender


def answered_again(recommender: Recommender, known: pa.Array) -> pa.Table:
    """The golden requests with the answers of a bundle that finds more items than those `known` to
    the training stack; those that the fallback answers stay as they are.

    Raises DataError where known items are answered otherwise than before.
    """
    golden = recommender.finder.golden()
    requests = golden.filter(golden.column(HISTORY).is_valid())
    unasked = golden.filter(golden.column(HISTORY).is_null())
    before = requests.column(EXPECTED_ITEMS).to_pylist()
    scores_before = requests.column(EXPECTED_SCORES).to_pylist()
    asked, seen = recommender.asked_of(requests)
    listed = recommender.finder.find_exactly(asked, max(map(len, before)), seen)
    old = set(known.to_pylist())
    items: list[list[Any]] = []
    scores: list[list[Any]] = []
    for row, (ids, values) in enumerate(zip(before, scores_before, strict=True)):
        kept = listed.places[row] >= 0
        places = pa.array(listed.places[row][kept].numpy())
        items.append(recommender.finder.item_ids.take(places).to_pylist())
        scores.append(listed.scores[row][kept].tolist())
        both = [pair for pair in zip(items[-1], scores[-1], strict=True) if pair[0] in old]
        those = [item for item, _ in both]
        now = [score for _, score in both]
        if not same_list(ids[: len(both)], values[: len(both)], those, now):
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
