"""Words that a score by TF-IDF is the sum of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from feature_store.columns import HISTORY
from feature_store.vocabulary import Vocabulary
from recsys.serving.recommender import Recommender
from recsys.serving.word_shares import Said, Side, WordShares

WORDS = "words.arrow"
"""The file of a part that names the columns of the sparse matrix that its program holds."""
_MATRIX = "words"


def tfidf_shares(recommender: Recommender, inputs: dict[str, Tensor], item: Any) -> WordShares:
    """Of a generator whose scores are means of cosines by TF-IDF to the distinct items of a
    history: of a word, the product of its weights in both items over the number of these.

    Words that only one side has add nothing, and are left out; of an item, the largest come first.
    """
    generator = recommender.generator
    names = Vocabulary.load(generator.bundle.part_file(generator.name, WORDS)).values
    ids = recommender.bundle.vocabularies_of(generator.name)[recommender.bundle.schema.item]
    row = int(generator.items[generator.place_of(item)])
    newest_first = inputs[HISTORY][0].flip(0).tolist()
    had = list(dict.fromkeys(each for each in newest_first if each))
    weights = _rows(generator.program, [row, *had])
    own, others = weights[0], weights[1:]
    added = others * own / len(had)
    history = [
        Said(each, _named(names, of))
        for each, of in zip(ids.decode(np.array(had)).to_pylist(), added, strict=True)
    ]
    asked = Said(generator.item_ids[generator.place_of(item)].as_py(), _named(names, added.sum(0)))
    return WordShares(_side(history), _side([asked]))


def _side(items: list[Said]) -> Side:
    return Side([said for said in items if said.words], 0.0)


def _named(names: pa.Array, added: np.ndarray) -> list[tuple[str, float]]:
    order = np.argsort(-added, kind="stable")
    kept = order[added[order] != 0]
    return list(zip(names.take(pa.array(kept)).to_pylist(), added[kept].tolist(), strict=True))


def _rows(program: nn.Module, rows: list[int]) -> np.ndarray:
    """Rows [n, V] of the matrix that a `SparseLinear` holds by columns."""
    buffers = dict(program.named_buffers())

    def held(part: str) -> np.ndarray:
        (name,) = (name for name in buffers if name.endswith(f".{_MATRIX}.{part}"))
        return buffers[name].numpy()

    distinct, back = np.unique(rows, return_inverse=True)
    of, ends = held("rows"), held("offsets")
    kept = np.isin(of, distinct)
    columns = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[kept]
    weights = np.zeros((len(distinct), len(ends) - 1))
    weights[np.searchsorted(distinct, of[kept]), columns] = held("values")[kept]
    return weights[back]
