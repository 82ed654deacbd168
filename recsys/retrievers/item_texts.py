"""Frozen vectors of items' texts, in the space of a model.

N item rows, S numbers of a text's vector, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.options import Options
from recsys.data.examples import Examples
from recsys.data.item_features import described_by
from recsys.layers.dropout import Dropout
from recsys.layers.frozen_vectors import FrozenVectors
from recsys.options import changed
from recsys.retrievers.adapters import AnyAdapter, Linear
from recsys.text.kept_vectors import kept_vectors
from recsys.text.options import TextConfig
from recsys.text.sentences import attributes_of
from recsys.text.tfidf import WordSpace, tfidf_vectors, word_space

OPTION = "retriever.text"
_TOKENS = 128  # of an item that an encoder reads


class TextVectorsConfig(Options):
    """How the texts of items become vectors, which no training changes."""

    attributes: tuple[str, ...] = Field(
        (),
        description="Features of items that are read; empty takes all texts, ids and bags; of "
        "which an encoder reads those that are words.",
    )
    dimensions: int = Field(256, ge=2, description="S: singular values of TF-IDF that are kept.")
    encoder: Path | None = Field(
        None,
        description="A folder in the layout of Hugging Face, of an encoder of sentences whose "
        "vectors are taken instead of those of TF-IDF.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder is not None and changed(self, "dimensions"):
            raise ValueError(
                "dimensions are those of TF-IDF: an encoder has its own, leave one out"
            )
        return self

    def of(self, examples: Examples) -> Tensor:
        """Vectors [N, S] of all item rows, of length 1; 0 where there is no text.

        Raises ConfigError for attributes that items do not have.
        """
        features = described_by(self.attributes, examples.schema, option=f"{OPTION}.attributes")
        if self.encoder is None:
            table = examples.item_attributes(tuple(feature.name for feature in features))
            return torch.from_numpy(tfidf_vectors(table, features, self.dimensions))
        read = TextConfig(
            attributes=attributes_of(examples.schema, self.attributes),
            encoder=self.encoder,
            names=False,
            separator=True,
            max_tokens=_TOKENS,
        )
        # what lies elsewhere is read there and not written
        folder = examples.folder if isinstance(examples.folder, Path) else None
        return kept_vectors(folder, examples.item_attributes(read.attributes), read)

    def words(self, examples: Examples) -> WordSpace | None:
        """The words that the vectors were made of; None of those of an encoder."""
        if self.encoder is not None:
            return None
        features = described_by(self.attributes, examples.schema, option=f"{OPTION}.attributes")
        table = examples.item_attributes(tuple(feature.name for feature in features))
        return word_space(table, features, self.dimensions)


class AdaptedTextConfig(TextVectorsConfig):
    """How such vectors become those of items."""

    adapter: AnyAdapter = Field(
        Linear(),
        description="What brings them into the model's space; or a table with its options.",
    )
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Share of a text's numbers that a training step hides."
    )


class ItemTextConfig(AdaptedTextConfig):
    """How they stand beside vectors of ids."""

    id_dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the items of a step whose ids are hidden: their texts alone learn to "
        "place them, as they must where an item is new.",
    )


class ItemTexts(nn.Module):
    """Vectors [..., D] of item rows [...] by their texts alone."""

    def __init__(self, config: AdaptedTextConfig, examples: Examples, width: int) -> None:
        super().__init__()
        self.frozen = FrozenVectors(config.of(examples))
        self.drop = Dropout(config.dropout)
        self.adapter = config.adapter.make(self.frozen.width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """[...] -> [..., D]."""
        if not self.training:
            return self._adapted(rows)
        items, places = rows.unique(return_inverse=True)  # a step reads most of them often
        return F.embedding(places, self._adapted(items))

    def _adapted(self, rows: Tensor) -> Tensor:
        return self.adapted(self.drop(self.frozen(rows)))

    def adapted(self, vectors: Tensor) -> Tensor:
        """Of vectors of texts [..., S]."""
        adapted: Tensor = self.adapter(vectors)
        return adapted
