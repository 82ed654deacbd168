"""Attributes of items -> their sentences as tokens, made once for the same texts and options."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.errors import DataError
from recsys.text.options import TextConfig
from recsys.text.sentences import Attribute, item_attributes
from recsys.text.tokenised import NAME, VALUE, TokenisedItems
from recsys.text.tokens import Tokenizer

_RULES = 1  # of cleaning and joining: another number makes anew what was kept


def tokenizer_of(table: pa.Table, config: TextConfig) -> Tokenizer:
    """The one of `config.tokenizer`, or else of `config.encoder`, or else one that is trained on
    the attributes of the items of a table."""
    folder = config.tokenizer or config.encoder
    if folder is not None:
        return Tokenizer.load(folder)
    texts: list[str] = []
    for attribute in item_attributes(table, _columns(table, config)):
        values = attribute.values.drop_null().to_pylist()
        texts += values + [attribute.name] * len(values)  # as often as it is read
    return Tokenizer.train(texts, config.vocabulary)


def tokenise(table: pa.Table, tokenizer: Tokenizer, config: TextConfig) -> TokenisedItems:
    """Sentences of items, one a row of a table: of its columns `config.attributes`, or of all.

    An attribute is the tokens of its name and then of its value, cut to `tokens_per_attribute`; an
    item without any has no tokens.
    """
    attributes = item_attributes(table, _columns(table, config))
    parts = [_Part.of(attribute, tokenizer, config) for attribute in attributes]
    lengths = np.stack([part.lengths for part in parts], axis=1)  # [N, attributes]
    read = (lengths > 0).cumsum(axis=1) <= config.attributes_per_item
    lengths *= read
    ends = lengths.cumsum().reshape(lengths.shape)  # item by item, attribute by attribute
    size = int(lengths.sum())
    tokens, types = np.zeros(size, np.int32), np.zeros(size, np.int8)
    for part, kept, to in zip(parts, (lengths > 0).T, (ends - lengths).T, strict=True):
        part.write(np.flatnonzero(kept), to[kept], tokens, types)
    offsets = np.concatenate([[0], lengths.sum(axis=1).cumsum()])
    sep = tokenizer.sep if config.separator else None
    return TokenisedItems(tokens, types, offsets, tokenizer.cls, tokenizer.pad, sep)


def tokenised(
    path: Path, table: pa.Table, tokenizer: Tokenizer, config: TextConfig
) -> TokenisedItems:
    """`tokenise`, from the file at `path` where it holds what the same texts, tokenizer and options
    made; otherwise it is written there."""
    fingerprint = _fingerprint(table, tokenizer, config)
    try:
        kept, made_of = TokenisedItems.read(path)
    except DataError:  # there is none, or half of one
        made_of = None
    if made_of == fingerprint:
        return kept
    items = tokenise(table, tokenizer, config)
    items.save(path, fingerprint)
    return items


@dataclass(frozen=True)
class _Part:
    """One attribute of all items: tokens of distinct values, and which of them an item has."""

    tokens: np.ndarray  # of all distinct values, one behind the other
    types: np.ndarray
    starts: np.ndarray  # [distinct]
    lengths: np.ndarray  # [N], 0 where an item has no value
    value_of: np.ndarray  # [N]

    @classmethod
    def of(cls, attribute: Attribute, tokenizer: Tokenizer, config: TextConfig) -> _Part:
        """Each distinct value is tokenised once."""
        coded = attribute.values.dictionary_encode()
        longest = config.tokens_per_attribute
        name = tokenizer.encode([attribute.name], longest)[0] if config.names else []
        values = tokenizer.encode(coded.dictionary.to_pylist(), longest)
        sentences = [(name + value)[:longest] for value in values]
        lengths = np.array([len(tokens) for tokens in sentences], np.int64)
        # a value of which the tokenizer leaves nothing is none
        lengths_of = np.where([len(value) > 0 for value in values], lengths, 0)
        ends = np.cumsum(lengths)
        size = int(ends[-1]) if len(ends) else 0
        tokens = np.fromiter((t for s in sentences for t in s), np.int32, size)
        of_value = np.arange(size) - np.repeat(ends - lengths, lengths)
        types = np.where(of_value < len(name), NAME, VALUE).astype(np.int8)
        value_of = coded.indices.fill_null(-1).to_numpy()
        lengths_of = np.append(lengths_of, 0).astype(np.int64)[value_of]  # the last of none
        return cls(tokens, types, np.append(ends - lengths, 0), lengths_of, value_of)

    def write(
        self, items: np.ndarray, to: np.ndarray, tokens: np.ndarray, types: np.ndarray
    ) -> None:
        """Put the tokens of some items [n] where each of them begins, `to` [n]."""
        lengths = self.lengths[items]
        ends = np.cumsum(lengths)
        within = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
        source = np.repeat(self.starts[self.value_of[items]], lengths) + within
        target = np.repeat(to, lengths) + within
        tokens[target], types[target] = self.tokens[source], self.types[source]


def _columns(table: pa.Table, config: TextConfig) -> tuple[str, ...]:
    return config.attributes or tuple(table.column_names)


def _fingerprint(table: pa.Table, tokenizer: Tokenizer, config: TextConfig) -> str:
    """Sixteen hex digits over all that sentences are made of."""
    digest = hashlib.sha256()
    read = {
        "rules": _RULES,
        "attributes": _columns(table, config),
        "names": config.names,
        "attributes_per_item": config.attributes_per_item,
        "tokens_per_attribute": config.tokens_per_attribute,
        "separator": config.separator,
    }
    digest.update(json.dumps(read).encode())
    digest.update(tokenizer.text.encode())
    sink = pa.BufferOutputStream()
    texts = table.select(list(_columns(table, config))).combine_chunks().replace_schema_metadata()
    with pa.ipc.new_stream(sink, texts.schema) as writer:
        writer.write_table(texts)
    digest.update(memoryview(sink.getvalue()))
    return digest.hexdigest()[:16]
