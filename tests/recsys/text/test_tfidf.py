"""TF-IDF by hand and against scikit-learn; words of texts, ids and bags."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from feature_store.schema import Feature
from recsys.text.tfidf import tfidf_matrix, tfidf_vectors, words_of

TITLE = Feature(name="title", kind="text", side="item")
BRAND = Feature(name="brand", kind="id", side="item")
TAGS = Feature(name="tags", kind="bag", side="item", dtype="int64")
TITLES = ["Red nail polish", None, "red RED lipstick", "nail file"]


def test_words_are_those_of_texts_and_whole_ids() -> None:
    table = pa.table(
        {
            "title": [None, "Straße, 2-Pack: O.P.I \N{NAIL POLISH}!", "", "שלום nail"],
            "brand": ["Red Sea", None, None, "2"],
            "tags": [[2, 7], [], None, [None]],
        }
    )
    assert list(words_of(table, (TITLE, BRAND, TAGS))) == [
        ["brand=Red Sea", "tags=2", "tags=7"],
        ["strasse", "2", "pack", "o", "p", "i"],
        [],
        ["שלום", "nail", "brand=2"],
    ]
    assert next(words_of(table, (TAGS,))) == ["tags=2", "tags=7"]


def test_weights_are_those_of_the_formula() -> None:
    """Of four items two have `red`, which the third has twice, and two have `nail`."""
    matrix = tfidf_matrix(pa.table({"title": TITLES}), (TITLE,), least=1).toarray()
    often, once = 1 + math.log(5 / 3), 1 + math.log(5 / 2)  # of two items, and of one
    third = np.array([0, once, 0, 0, (1 + math.log(2)) * often])  # file lipstick nail polish red
    np.testing.assert_allclose(matrix[2], third / np.linalg.norm(third), rtol=1e-6)
    first = np.array([0, 0, often, once, often])
    np.testing.assert_allclose(matrix[0], first / np.linalg.norm(first), rtol=1e-6)
    assert not matrix[1].any()


def test_words_of_a_single_item_are_left_out_where_it_is_asked() -> None:
    matrix = tfidf_matrix(pa.table({"title": TITLES}), (TITLE,), least=2).toarray()
    np.testing.assert_allclose(matrix[2:], [[0, 1], [1, 0]], rtol=1e-6)  # nail, red
    np.testing.assert_allclose(matrix[0], [math.sqrt(0.5)] * 2, rtol=1e-6)


def test_it_weighs_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    titles = [
        " ".join(f"w{rng.zipf(1.5) % 50}" for _ in range(rng.integers(1, 9))) for _ in "x" * 60
    ]
    expected = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\w+")
    theirs = expected.fit_transform(titles).toarray()
    ours = tfidf_matrix(pa.table({"title": titles}), (TITLE,)).toarray()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_vectors_keep_the_cosines_and_are_the_same_again() -> None:
    rng = np.random.default_rng(0)
    titles = [" ".join(f"w{w}" for w in rng.integers(0, 30, 5)) for _ in range(200)]
    table = pa.table({"title": titles})
    matrix = tfidf_matrix(table, (TITLE,)).toarray()
    vectors = tfidf_vectors(table, (TITLE,), 40)
    assert vectors.shape == (200, 29) and vectors.dtype == np.float32  # one less than words
    np.testing.assert_allclose(vectors @ vectors.T, matrix @ matrix.T, atol=0.15)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert np.array_equal(vectors, tfidf_vectors(table, (TITLE,), 40))


def test_rare_words_tell_items_apart_in_few_dimensions() -> None:
    """Pairs of items share a name that no other item has, beside words that many have."""
    rng = np.random.default_rng(0)
    common = [" ".join(f"w{w}" for w in rng.integers(0, 40, 6)) for _ in range(400)]
    titles = [f"{words} name{n // 2}" for n, words in enumerate(common)]
    vectors = tfidf_vectors(pa.table({"title": titles}), (TITLE,), 60)
    cosines = vectors @ vectors.T - 2 * np.eye(400)
    share = (cosines.argmax(1) == np.arange(400) ^ 1).mean()
    assert share > 0.8, share  # .05 where directions keep the lengths of singular vectors


@pytest.mark.parametrize("titles", [[None, None], ["once", "alone"], [], ["same", "same"]])
def test_items_without_words_to_compare_have_the_vector_0(titles: list[str | None]) -> None:
    table = pa.table({"title": pa.array(titles, pa.string())})
    vectors = tfidf_vectors(table, (TITLE,), 8)
    assert len(vectors) == len(titles) and not np.isnan(vectors).any()
    if titles[:1] != ["same"]:
        assert not vectors.any()
