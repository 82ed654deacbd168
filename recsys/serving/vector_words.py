"""Words that frozen vectors of items' texts were made of, and what each of them adds to a score.

N item rows, V words, S numbers of a text's vector, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from feature_store.columns import HISTORY
from feature_store.vocabulary import Vocabulary
from recsys.serving.generator import PROGRAM, Generator
from recsys.serving.recommender import Recommender
from recsys.serving.tfidf_words import WORDS
from recsys.serving.word_shares import Said, Side, WordShares
from recsys.text.contributions import contributions

SPACE, DESCRIBED = "words.npz", "described.pt2"
MOST_WORDS = 64  # of a history, from the newest item on, that are told apart; older ones stay
_NOTHING = 1e-4  # of the length of a text's vector: rounding alone
_VECTORS = ".vectors"  # how the buffer of a program ends that holds those of texts [N, S]


class Word(NamedTuple):
    """A word of the text of an item row, and what it adds to the vector [S] before that has its
    length."""

    row: int
    text: str
    added: Tensor


class Texts:
    """The texts of the items of a part, by words: `vectors` [N, S] are those that it reads."""

    def __init__(self, vectors: Tensor, names: pa.Array, space: dict[str, np.ndarray]) -> None:
        self.vectors, self.names = vectors, names
        self._ends, self._columns = space["indptr"], space["indices"]
        self._weights, self._directions = space["data"], space["directions"]

    @classmethod
    def of(cls, generator: Generator, vectors: Tensor) -> Self:
        """Those of an opened generator."""
        file = partial(generator.bundle.part_file, generator.name)
        names = Vocabulary.load(file(WORDS)).values
        with np.load(file(SPACE)) as space:
            return cls(vectors, names, dict(space))

    def words(self, row: int) -> list[Word]:
        """The words of an item row, those that weigh most first; none of a text without any.

        What they add sums to the vector that the model reads, times a length: what singular values
        that were found by sampling leave over is laid on all alike.
        """
        own = slice(self._ends[row], self._ends[row + 1])
        columns, weights = self._columns[own], self._weights[own]
        added = torch.from_numpy(weights[:, None] * self._directions[columns])
        whole = added.sum(0)
        added += (self.vectors[row] * whole.norm() - whole) / max(1, len(columns))
        order = np.argsort(-weights, kind="stable").tolist()
        return [Word(row, self.names[int(columns[at])].as_py(), added[at]) for at in order]

    def without(self, row: int, left_out: Tensor) -> Tensor:
        """Vectors [M, S], of length 1 or 0, of a text that lacks sums [M, S] of its words."""
        whole = sum((word.added for word in self.words(row)), torch.zeros_like(self.vectors[row]))
        rest = whole - left_out
        nothing = rest.norm(dim=1, keepdim=True) <= _NOTHING * whole.norm()
        return nn.functional.normalize(rest.masked_fill(nothing, 0), dim=1)


def vector_shares(
    recommender: Recommender, inputs: dict[str, Tensor], item: Any, orders: int
) -> WordShares:
    """Of a generator that reads frozen vectors of texts, by TF-IDF: what its ids and all else that
    it knows of items add is in what there is without words.

    See `recsys.text.contributions`.
    """
    generator = recommender.generator
    program = generator.bundle.program(generator.name, PROGRAM)  # of which a copy is changed
    held = next(buffer for name, buffer in program.named_buffers() if name.endswith(_VECTORS))
    texts = Texts.of(generator, held.clone())
    ids = recommender.bundle.vocabularies_of(generator.name)[recommender.bundle.schema.item]
    place = generator.place_of(item)
    row = int(ids.encode(generator.item_ids.slice(place, 1))[0])
    had = list(dict.fromkeys(each for each in inputs[HISTORY][0].flip(0).tolist() if each))
    words = [word for each in had for word in texts.words(each)][:MOST_WORDS]
    user = generator.queries(inputs).vectors[0, 0]

    @torch.no_grad()
    def of_history(kept: Tensor) -> Tensor:
        changed = {each: _vectors(texts, each, words, kept) for each in {w.row for w in words}}
        answers = []
        for mask in range(len(kept)):
            for each, vectors in changed.items():
                held[each] = vectors[mask]
            answers.append(program(inputs)[0][0, 0])
        return torch.stack(answers)

    own = texts.words(row)
    described = generator.bundle.program(generator.name, DESCRIBED)

    @torch.no_grad()
    def of_item(kept: Tensor) -> Tensor:
        vectors = _vectors(texts, row, own, kept)
        made: Tensor = described(torch.full((len(kept),), row), vectors)
        return made

    history = _told(of_history, generator.items[place], words, orders)
    asked = _told(of_item, user, own, orders)
    named = dict(zip([*had, row], ids.decode(np.array([*had, row])).to_pylist(), strict=True))
    return WordShares(_side(*history, named), _side(*asked, named))


def _vectors(texts: Texts, row: int, words: list[Word], kept: Tensor) -> Tensor:
    """The vectors [M, S] of a text with those of `words` that are kept [M, P]."""
    own = [at for at, word in enumerate(words) if word.row == row]
    gone = (~kept[:, own]).float()
    added = torch.stack([words[at].added for at in own]) if own else gone.new_zeros(0, 1)
    return texts.without(row, gone @ added)


def _told(
    vectors_of: Callable[[Tensor], Tensor], other: Tensor, words: list[Word], orders: int
) -> tuple[list[tuple[Word, float]], float]:
    made = contributions(vectors_of, other, len(words), orders=orders)
    return list(zip(words, made.words.tolist(), strict=True)), made.base


def _side(told: list[tuple[Word, float]], base: float, named: dict[int, Any]) -> Side:
    by_row: dict[int, list[tuple[str, float]]] = {}
    for word, added in told:
        by_row.setdefault(word.row, []).append((word.text, added))
    return Side([Said(named[row], words) for row, words in by_row.items()], base)
