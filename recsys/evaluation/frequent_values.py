"""The values of a column that are frequent enough to make slices of their own."""

from __future__ import annotations

import numpy as np

from feature_store.vocabulary import Vocabulary

MOST = 12  # of one column; the rest is "other"


def frequent(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, list[str]]:
    """The rows that occur most often among `rows` [...], 0 = unknown left out, and their names."""
    counts = np.bincount(rows.ravel(), minlength=len(vocabulary))
    counts[0] = 0
    largest = np.argsort(-counts, kind="stable")[: min(MOST, np.count_nonzero(counts))]
    return largest, [str(value) for value in vocabulary.decode(largest).to_pylist()]
