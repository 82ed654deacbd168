"""How likely items are for a user, by a ranker of what is live."""

from __future__ import annotations

import pyarrow as pa

from recsys.server.live import Live
from recsys.server.models import Score, Scored
from recsys.server.rows import ids_as, with_features
from recsys.serving.scorer import PROBABILITY


def score(live: Live, asked: Score) -> Scored:
    """The items of a question with their probabilities. Raises DataError for what the ranker
    cannot read."""
    scorer, schema = live.scores(asked.part), live.bundle.schema
    task = asked.task or scorer.tasks[0]
    kind = live.bundle.vocabularies_of(scorer.part)[schema.item].values.type
    table = pa.table({schema.item: ids_as(asked.items, kind, "items")})
    if asked.user is not None:
        users = ids_as([asked.user], live.user_type, "user")
        table = table.append_column(schema.user, users.take(pa.array([0] * len(table))))
    table = with_features(live, table, [asked.features] * len(table))
    probabilities = scorer.score_table(table, task).column(PROBABILITY).to_pylist()
    return {
        "bundle": live.version,
        "task": task,
        "items": [
            {"item": item, "probability": probability}
            for item, probability in zip(asked.items, probabilities, strict=True)
        ],
    }
