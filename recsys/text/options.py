"""Options of models that read the texts of items."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from feature_store.options import Options


class TextConfig(Options):
    """How items become sentences, and what encodes them.

    The defaults are Recformer's (Li et al., KDD 2023), but for an encoder that is small enough to
    be trained from nothing on a CPU.
    """

    attributes: tuple[str, ...] = Field(
        (),
        description="Features of items that are read, in this order. By default all texts, then "
        "ids and bags that are words.",
    )
    names: bool = Field(
        True,
        description="Whether the name of an attribute stands before its value; encoders that "
        "were trained on plain sentences read values alone.",
    )
    attributes_per_item: int = Field(
        8, ge=1, description="Attributes of an item that are read: the first that it has."
    )
    tokens_per_attribute: int = Field(
        32, ge=1, description="Tokens that are read of an attribute, its name included."
    )
    max_items: int = Field(50, ge=1, description="Items of a history that are read, newest first.")
    max_tokens: int = Field(
        512, ge=3, description="Tokens of a sequence; of a longer one the oldest are cut off."
    )
    separator: bool = Field(
        False,
        description="Whether the tokenizer's separator ends every sequence, as encoders of "
        "sentences have learned it.",
    )
    tokenizer: Path | None = Field(
        None,
        description="A folder in the layout of Hugging Face, with tokenizer.json. By default the "
        "encoder's, or without one a tokenizer that is trained on the catalogue.",
    )
    vocabulary: int = Field(
        8192, ge=300, description="Tokens of a tokenizer that is trained on the catalogue, at most."
    )
    encoder: Path | None = Field(
        None,
        description="A folder in the layout of Hugging Face, with config.json and "
        "model.safetensors, of a Longformer, RoBERTa or BERT. By default a small Longformer, whose "
        "training begins with what the words of the catalogue tell.",
    )
    width: int = Field(64, ge=2, description="Width of the small Longformer.")
    layers: int = Field(2, ge=1, description="Layers of the small Longformer.")
    heads: int = Field(2, ge=1, description="Attention heads of the small Longformer.")
    window: int = Field(
        64,
        ge=2,
        multiple_of=2,
        description="Tokens around it, half of them on either side, that a token of the small "
        "Longformer sees, beside the first one.",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the small Longformer.")
    pooling: Literal["first", "mean", "weighted"] | None = Field(
        None,
        description="What the vector of a sequence is made of: its first token, [CLS], the mean of "
        "all, or their mean by weights that are learned, of each token and of each place in the "
        "history. By default as the folder of the encoder says, or weighted of a small Longformer.",
    )
    token_types: bool = Field(
        True, description="Whether tokens are told whether they are of a name or of a value."
    )
    item_positions: bool = Field(
        True, description="Whether tokens are told which item they are of, counted from the newest."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self
