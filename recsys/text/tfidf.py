"""TF-IDF: items as weighted words. N items, V words, S numbers of a vector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from feature_store.schema import Feature

_WORD = re.compile(r"\w+")


def words_of(table: pa.Table, features: Iterable[Feature]) -> Iterator[list[str]]:
    """The words of every item, one a row of a table that holds the columns of `features` as the
    catalogue has them: of texts, in small letters, what spaces and marks part; of ids and bags
    each value whole, told from words and from those of other features."""
    columns = [(feature, table.column(feature.name).to_pylist()) for feature in features]
    for row in range(table.num_rows):
        words: list[str] = []
        for feature, values in columns:
            value = values[row]
            if value is None:
                continue
            if feature.kind == "text":
                words += _WORD.findall(value.casefold())
            else:
                several = value if isinstance(value, list) else [value]
                words += [f"{feature.name}={v}" for v in several if v is not None]
        yield words


def tfidf_matrix(table: pa.Table, features: Iterable[Feature], least: int = 2) -> sp.csr_array:
    """The matrix of `weighed_words` alone."""
    return weighed_words(table, features, least)[0]


def weighed_words(
    table: pa.Table, features: Iterable[Feature], least: int = 2
) -> tuple[sp.csr_array, tuple[str, ...]]:
    """TF-IDF [N, V] of the words that at least so many items have, in the order of the alphabet;
    and these words. Rows have length 1; those of items without any such word are 0.

    A word that an item has n times weighs `(1 + ln n) (1 + ln((1 + N) / (1 + m)))`, m being the
    items that have it (Salton & Buckley, "Term-weighting approaches in automatic text retrieval",
    1988; smoothed as scikit-learn does it).
    """
    counted = [Counter(words) for words in words_of(table, features)]
    items_with = Counter(word for words in counted for word in words)
    place = {
        word: n for n, word in enumerate(sorted(w for w, m in items_with.items() if m >= least))
    }
    kept = [[(place[word], n) for word, n in words.items() if word in place] for words in counted]
    ends = np.cumsum([0, *map(len, kept)])
    flat = np.array([pair for words in kept for pair in words], dtype=np.int64).reshape(-1, 2)
    shape = (len(kept), len(place))
    counts = sp.csr_array((flat[:, 1].astype(np.float64), flat[:, 0], ends), shape=shape)
    if not len(place):
        return counts.astype(np.float32), ()
    weighed = TfidfTransformer(sublinear_tf=True).fit_transform(sp.csr_matrix(counts))
    return sp.csr_array(weighed, dtype=np.float32), tuple(place)


def tfidf_vectors(
    table: pa.Table, features: Iterable[Feature], dimensions: int, least: int = 2
) -> np.ndarray:
    """Vectors [N, S] of length 1, or 0, S at most `dimensions`: those of `word_space`."""
    return word_space(table, features, dimensions, least).vectors


class WordSpace(NamedTuple):
    """Items as sums of their words' directions: vectors [N, S], of length 1 or 0, the weights of
    words by TF-IDF [N, V], what the words are, and their directions [V, S], of length 1."""

    vectors: np.ndarray
    weights: sp.csr_array
    words: tuple[str, ...]
    directions: np.ndarray


def word_space(
    table: pa.Table, features: Iterable[Feature], dimensions: int, least: int = 2
) -> WordSpace:
    """Of S at most `dimensions`."""
    matrix, words = weighed_words(table, features, least)
    directions = word_directions(matrix, dimensions)
    return WordSpace(_unit(matrix @ directions), matrix, words, directions)


def word_directions(weights: sp.csr_array, dimensions: int) -> np.ndarray:
    """Directions [V, S] of words of items [N, V] in the space of the S largest singular values, at
    most `dimensions` (Deerwester et al., "Indexing by latent semantic analysis", 1990).

    All have length 1, where the singular vectors' own lengths are next to nothing for rare words:
    words that items share lie close, and a rare one, which tells its items from all others, still
    counts for as much as it weighs.
    """
    width = min(dimensions, min(weights.shape) - 1)
    if width < 1:
        return np.zeros((weights.shape[1], 1), dtype=np.float32)
    svd = TruncatedSVD(width, random_state=0).fit(sp.csr_matrix(weights))
    return _unit(svd.components_.T.astype(np.float32))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, or 0."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-9)
