"""Texts of items -> their vectors, by a bundle alone."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.serving.bundle import Bundle
from recsys.serving.manifest import GeneratorRecord
from recsys.text.batches import Sentences, by_length
from recsys.text.options import TextConfig
from recsys.text.tokenise import tokenise
from recsys.text.tokenised import TokenisedItems
from recsys.text.tokens import Tokenizer
from recsys.text.vectors import TOKENS_PER_BATCH

PROGRAM, TOKENIZER = "item.pt2", "tokenizer"
SHORTEST = 3  # tokens that a program is given, with padding: it takes fewer for constants


@dataclass(frozen=True)
class ItemEncoder:
    """Encodes items that a generator of a bundle does not know as it has encoded its own."""

    program: torch.nn.Module
    tokenizer: Tokenizer
    config: TextConfig

    @classmethod
    def open(cls, bundle: Bundle, name: str | None = None) -> ItemEncoder:
        """That of the generator of this name, by default of the only one.

        Raises DataError where the generator does not know items by their texts alone.
        """
        name, record = bundle.part(GeneratorRecord, name)
        if record.texts is None:
            raise DataError(
                f"{bundle.folder}: {name} is of {record.about.model}, which does not know items by "
                "their texts alone: new items need a new training"
            )
        bundle.part_file(name, f"{TOKENIZER}/tokenizer.json")  # is in the manifest
        folder = bundle.part_file(name, PROGRAM).parent / TOKENIZER
        return cls(bundle.program(name, PROGRAM), Tokenizer.load(folder), record.texts)

    def tokens(self, items: pa.Table) -> TokenisedItems:
        """Sentences of items, one a row of a table with the columns `config.attributes`.

        Raises DataError naming columns that are not there.
        """
        wanted = self.config.attributes
        if absent := [name for name in wanted if name not in items.column_names]:
            raise DataError(
                f"items lack {', '.join(absent)}, which this bundle reads of them; they have: "
                f"{', '.join(items.column_names)}"
            )
        return tokenise(items, self.tokenizer, self.config)

    def vectors(self, items: pa.Table) -> Tensor:
        """Vectors [n, D] of items, as `tokens`. An item without any text has the vector of no
        text."""
        return self.encode(self.tokens(items))

    @torch.no_grad()
    def encode(self, tokens: TokenisedItems) -> Tensor:
        """Vectors [n, D] of sentences, of which each distinct one is encoded once."""
        limits = {"max_tokens": self.config.max_tokens, "max_items": self.config.max_items}
        sentences = Sentences(tokens, **limits)
        distinct, of_row = sentences.distinct(torch.arange(len(tokens)))
        parts: list[Tensor] = []
        places = by_length(sentences.lengths(distinct).numpy(), TOKENS_PER_BATCH)
        for at in places:
            rows = distinct[torch.from_numpy(at)]
            batch = sentences.items(rows, max(SHORTEST, int(sentences.lengths(rows).max())))
            parts.append(self.program(batch.tokens, batch.types))
        order = torch.cat([torch.from_numpy(at) for at in places]).argsort()
        return torch.cat(parts)[order][of_row]
