"""Words of sentences that an encoder reads, and what each of them adds to a score."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from feature_store.columns import HISTORY
from recsys.serving.generator import PROGRAM, Generator
from recsys.serving.held_sentences import HeldSentences, held_by, holding_more
from recsys.serving.item_encoder import ItemEncoder
from recsys.serving.recommender import Recommender
from recsys.serving.word_shares import Said, Side, WordShares
from recsys.text.contributions import contributions
from recsys.text.tokenised import VALUE, TokenisedItems
from recsys.text.tokens import Tokenizer

MOST_WORDS = 64  # of a history, from the newest item on, that are told apart; older ones stay
_AT_ONCE = 64  # histories that are encoded together
_AROUND = " ,"  # what parts the values of a bag


class Word(NamedTuple):
    """A word of an item's sentence: which of the sentences, its tokens, and its text."""

    sentence: int
    tokens: np.ndarray
    text: str


def sentence_shares(
    recommender: Recommender, inputs: dict[str, Tensor], item: Any, orders: int
) -> WordShares:
    """Of a generator that encodes sentences: the words of values, in their order. Names of
    attributes are no words, and stay; so do words of a history beyond the first `MOST_WORDS`.

    See `recsys.text.contributions`.
    """
    generator = recommender.generator
    encoder = ItemEncoder.open(generator.bundle, generator.name)
    sentences = held_by(generator.program, f"{generator.bundle.folder}: {PROGRAM}")
    place = generator.place_of(item)
    history = inputs[HISTORY][0]
    ids = recommender.bundle.vocabularies_of(generator.name)[recommender.bundle.schema.item]
    newest_first = history.nonzero().squeeze(1).flip(0)
    read = history[newest_first].tolist()
    words = _words_of(sentences, read, encoder.tokenizer)[:MOST_WORDS]
    user = generator.queries(inputs).vectors[0, 0]
    row = int(ids.encode(generator.item_ids.slice(place, 1))[0])
    own = _words_of(sentences, [row], encoder.tokenizer)
    shortened = partial(_shortened, sentences, encoder)

    def of_history(kept: Tensor) -> Tensor:
        other = (shortened(read, words, chunk) for chunk in kept.split(_AT_ONCE))
        known = len(sentences)
        return torch.cat(
            [_read_anew(generator, inputs, newest_first, items, known) for items in other]
        )

    def of_item(kept: Tensor) -> Tensor:
        return encoder.encode(shortened([row], own, kept))

    told = partial(_told, orders=orders)
    named = ids.decode(np.array(read)).to_pylist()
    return WordShares(
        told(of_history, generator.items[place], words, named),
        told(of_item, user, own, [generator.item_ids[place].as_py()]),
    )


def _told(
    vectors_of: Callable[[Tensor], Tensor],
    other: Tensor,
    words: list[Word],
    items: list[Any],
    orders: int,
) -> Side:
    made = contributions(vectors_of, other, len(words), orders=orders)
    said = [Said(item, []) for item in items]
    for word, added in zip(words, made.words.tolist(), strict=True):
        said[word.sentence].words.append((word.text, added))
    return Side([each for each in said if each.words], made.base)


def _words_of(sentences: HeldSentences, rows: list[int], tokenizer: Tokenizer) -> list[Word]:
    """The words of the values of items, in their order."""
    words: list[Word] = []
    for sentence, row in enumerate(rows):
        tokens, types = sentences.of(row)
        value = types == VALUE
        begins = tokenizer.word_starts[tokens] | ~np.append(False, value[:-1])
        places = np.flatnonzero(value)
        for part in np.split(places, np.flatnonzero(begins[places])[1:]) if len(places) else ():
            text = tokenizer.decode(tokens[part].tolist())
            words.append(Word(sentence, part, text.strip(_AROUND) or text))
    return words


def _shortened(
    sentences: HeldSentences, encoder: ItemEncoder, rows: list[int], words: list[Word], kept: Tensor
) -> TokenisedItems:
    """The sentences of items [n] without the words that are not `kept` [M, P]: n for each mask."""
    tokens, types = zip(*map(sentences.of, rows), strict=True)
    parts: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    for mask in kept.tolist():
        stays = [np.ones(len(each), bool) for each in tokens]
        for word, there in zip(words, mask, strict=True):
            if not there:
                stays[word.sentence][word.tokens] = False
        parts += [each[stay] for each, stay in zip(tokens, stays, strict=True)]
        kinds += [each[stay] for each, stay in zip(types, stays, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    tokenizer = encoder.tokenizer
    sep = tokenizer.sep if encoder.config.separator else None
    return TokenisedItems(
        np.concatenate(parts), np.concatenate(kinds), offsets, tokenizer.cls, tokenizer.pad, sep
    )


def _read_anew(
    generator: Generator,
    inputs: dict[str, Tensor],
    places: Tensor,
    items: TokenisedItems,
    known: int,
) -> Tensor:
    """The vectors [M, D] of a history whose items at `places` [n] have other sentences, n for each
    of M; rows beyond those that are `known`."""
    count = len(items) // len(places)
    asked = {name: part.repeat(count, *[1] * (part.dim() - 1)) for name, part in inputs.items()}
    rows = known + torch.arange(len(items)).view(count, len(places))
    asked[HISTORY][:, places] = rows
    with holding_more(generator.program, items, str(generator.bundle.folder)):
        return generator.queries(asked).vectors[:, 0]
