"""Texts of synthetic items: each cluster has its own words, brands and category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.sources.synthetic_lexicon import (
    brand_names,
    categories_of,
    common_words,
    own_words,
)
from feature_store.sources.synthetic_world import WORDS, World

ITEM_BLOCK = 1 << 16  # fixed: the words of items are drawn block by block
_ONSETS = ("b", "br", "d", "f", "g", "gl", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS = ("", "", "l", "n", "r", "s", "t", "x")
_OWN_WORDS, _COMMON_WORDS, _BRANDS = 12, 40, 4
_KEYWORDS = 4


@dataclass(frozen=True)
class Words:
    """The vocabularies of all clusters. A brand is at home in about two clusters."""

    world: World
    common: pa.Array  # [_COMMON_WORDS]
    own: pa.Array  # [C * _OWN_WORDS], cluster after cluster
    brands: pa.Array
    brand_of: np.ndarray  # [C, _BRANDS] into brands
    categories: pa.Array  # [C]

    @classmethod
    def draw(cls, world: World) -> Words:
        """The vocabularies of a world."""
        random = world.random(WORDS)
        clusters = world.clusters
        brands = max(_BRANDS, clusters * _BRANDS // 2)
        sounds = _invent(random, _COMMON_WORDS + clusters * (_OWN_WORDS + 1) + brands)
        cuts = np.cumsum([_COMMON_WORDS, clusters * _OWN_WORDS, brands])
        lexicon = (common_words, own_words, brand_names, categories_of)
        common, own, names, categories = (
            _spelled(part, words(len(part)))
            for part, words in zip(np.split(sounds, cuts), lexicon, strict=True)
        )
        return cls(
            world=world,
            common=common,
            own=own,
            brands=names,
            brand_of=random.integers(0, brands, (clusters, _BRANDS)),
            categories=categories,
        )

    def describe(self, cluster: np.ndarray, block: int) -> dict[str, pa.Array]:
        """Title, brand, category and keywords of the items of a block with these clusters [n]."""
        random = self.world.random(WORDS, block + 1)
        count = len(cluster)
        pick = random.integers(0, _BRANDS, count)
        brand = self.brands.take(pa.array(self.brand_of[cluster, pick]))
        category = self.categories.take(pa.array(cluster))
        shuffled = np.argsort(random.random((count, _OWN_WORDS)), axis=1)
        own = cluster[:, None] * _OWN_WORDS + shuffled[:, :_KEYWORDS]  # no word twice
        keywords = self.own.take(pa.array(own.ravel()))
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * _KEYWORDS)
        first, second = (self.own.take(pa.array(own[:, place])) for place in (0, 1))
        anyhow = self.common.take(pa.array(random.integers(0, _COMMON_WORDS, count)))
        title = pc.binary_join_element_wise(brand, anyhow, first, second, category, " ")
        return {
            "title": title,
            "brand": brand,
            "category": category,
            "keywords": pa.ListArray.from_arrays(offsets, keywords),
        }


def _spelled(sounds: np.ndarray, words: list[str]) -> pa.Array:
    """`words` [n] in the order in which `sounds` [n] sort.

    Vocabularies are sorted: so every word has the row that its sounds had before there were words,
    and what was trained on them comes out the same.
    """
    spelled = np.empty(len(words), dtype=object)
    spelled[np.argsort(sounds)] = sorted(words)
    return pa.array(spelled, pa.string())


def _invent(random: np.random.Generator, count: int) -> np.ndarray:
    """That many different combinations of sounds."""
    words: dict[str, None] = {}
    while len(words) < count:
        sounds = (_ONSETS, _VOWELS, _CODAS, _ONSETS, _VOWELS, _CODAS)
        words["".join(sound[random.integers(len(sound))] for sound in sounds)] = None
    return np.array(list(words))
