"""Tiny encoders with random weights in folders as Hugging Face lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from recsys.text.tokens import Tokenizer

WORDS = ["red shoes", "blue hat", "green socks and shoes", "title", "colour"] * 3


def write_encoder(folder: Path, kind: str, *, head: bool = False, **options: Any) -> Any:
    """Write a tokenizer and an encoder of a kind, as published weights often are below a `head` of
    masked language modelling; returns transformers' own model."""
    tokenizer = Tokenizer.train(WORDS, 300)
    tokenizer.save(folder)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "pad_token_id": tokenizer.pad,
        "initializer_range": 0.5,  # so that positions and neighbours matter
        **options,
    }
    if kind == "longformer":
        common.setdefault("attention_window", [4, 6])
    name = {"longformer": "Longformer", "roberta": "Roberta", "bert": "Bert"}[kind]
    about = getattr(transformers, f"{name}Config")(**common)
    made = getattr(transformers, f"{name}{'ForMaskedLM' if head else 'Model'}")(about).eval()
    made.save_pretrained(folder)
    return made.base_model
