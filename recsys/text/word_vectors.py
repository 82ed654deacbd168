"""What the words of a catalogue tell before any training. N items, V tokens, D width."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from recsys.text.tfidf import word_directions
from recsys.text.tokenised import TokenisedItems

MOST_ITEMS = 200_000  # more would change little, and take long


class WordVectors(NamedTuple):
    """Of the tokens [m] that items have: vectors [m, D] of length 1, and how much each tells [m],
    1 on average over all that is written."""

    tokens: np.ndarray
    vectors: np.ndarray
    weights: np.ndarray


def word_vectors(items: TokenisedItems, width: int) -> WordVectors:
    """As `word_directions` of TF-IDF, and inverse document frequencies; each distinct sentence
    counts once."""
    counts = _counts(items)
    tokens = np.flatnonzero(np.diff(counts.tocsc().indptr))
    counts = counts[:, tokens]
    having = np.diff(counts.tocsc().indptr)
    weights = np.log((1 + counts.shape[0]) / (1 + having)) + 1e-3
    weighed = counts.multiply(weights).tocsr()
    lengths = np.sqrt(weighed.multiply(weighed).sum(axis=1)).A1
    directions = word_directions(sp.diags_array(1 / np.maximum(lengths, 1e-9)) @ weighed, width)
    vectors = np.pad(directions, ((0, 0), (0, width - directions.shape[1])))
    written = np.asarray(counts.sum(axis=0)).ravel()
    mean = float((weights * written).sum() / max(1, written.sum()))
    return WordVectors(tokens, vectors, (weights / mean).astype(np.float32))


def _counts(items: TokenisedItems) -> sp.csr_matrix:
    """How often each distinct sentence has each token [n, V]."""
    distinct = np.unique(items.first_like)
    if len(distinct) > MOST_ITEMS:
        distinct = distinct[np.linspace(0, len(distinct) - 1, MOST_ITEMS).astype(np.int64)]
    size = int(items.tokens.max(initial=-1)) + 1
    ones = np.ones(len(items.tokens))
    counts = sp.csr_matrix((ones, items.tokens.copy(), items.offsets), shape=(len(items), size))
    counts.sum_duplicates()
    return counts[distinct]
