"""Texts -> tokens, by a tokenizer of our own or one in the layout of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.durable import staged
from feature_store.errors import ConfigError, DataError
from recsys.text.extras import needed

_FILE = "tokenizer.json"
# What each is called, by BERT and by RoBERTa; of our own tokenizers in this order.
_SPECIAL = {
    "cls_token": ("[CLS]", "<s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "sep_token": ("[SEP]", "</s>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
}
# How the tokens that begin a word are told from those that go on with it.
_BEGINS = ("\u0120", "\u2581")  # of byte-level and SentencePiece tokenizers
_GOES_ON = "##"  # of WordPiece


class Tokenizer:
    """Makes tokens of texts, and knows the special ones."""

    def __init__(self, tokenizer: Any) -> None:
        """Of one of the library `tokenizers`. Raises DataError where it lacks a special token."""
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # a title with [MASK] in it masks nothing
        self._special: dict[str, int] = {}
        for role, names in _SPECIAL.items():
            known = (tokenizer.token_to_id(name) for name in names)
            token = next((token for token in known if token is not None), None)
            if token is not None:
                self._special[role] = token
            elif role != "unk_token":  # tokenizers of bytes need none
                raise DataError(
                    f"the tokenizer has no token {' or '.join(names)}, which models need"
                )
        self.cls, self.pad = self._special["cls_token"], self._special["pad_token"]
        self.sep, self.mask = self._special["sep_token"], self._special["mask_token"]

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> Tokenizer:
        """A byte-level BPE (Sennrich et al., 2016; Radford et al., 2019) of texts in lower case.

        It has `vocabulary` tokens at most, and 261 at least: every byte is one, so that no text is
        unknown. The same texts make the same tokenizer.
        """
        library = needed("tokenizers")
        tokenizer = library.Tokenizer(library.models.BPE())
        normalizers = library.normalizers
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=[names[0] for names in _SPECIAL.values()],
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a folder: its tokenizer.json.

        Raises:
            ConfigError: there is no such folder or file.
            DataError: it is no tokenizer, or one without the special tokens.
        """
        path = Path(folder) / _FILE
        if not path.is_file():
            raise ConfigError(
                f"{path} not found: a tokenizer is a folder in the layout of Hugging Face with "
                f"{_FILE}, as `AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)` writes "
                "it; without one a tokenizer is trained on the catalogue"
            )
        library = needed("tokenizers")
        try:
            tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise DataError(f"{path} is no tokenizer: {error}") from None
        return cls(tokenizer)

    def save(self, folder: Path) -> None:
        """Write a folder that `load` and `transformers.AutoTokenizer` read; it appears whole."""
        named = {role: self.name_of(token) for role, token in self._special.items()}
        with staged(Path(folder)) as aside:
            (aside / _FILE).write_text(self.text)
            about = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
            (aside / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n")

    def __len__(self) -> int:
        """Tokens of the vocabulary, special ones included."""
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def text(self) -> str:
        """All of it as JSON: two tokenizers with the same make the same of every text."""
        return str(self._tokenizer.to_str())

    def name_of(self, token: int) -> str:
        """How a token is written in the vocabulary."""
        return str(self._tokenizer.id_to_token(token))

    @cached_property
    def word_starts(self) -> np.ndarray:
        """Which tokens [V] begin a word; special ones do.

        Punctuation and what else stands close to a word is part of it where the tokenizer does not
        mark it, as with RoBERTa's.
        """
        names = [self._tokenizer.id_to_token(token) or "" for token in range(len(self))]
        if any(name.startswith(_BEGINS) for name in names):
            starts = np.array([name.startswith(_BEGINS) for name in names])
        else:
            starts = np.array([not name.startswith(_GOES_ON) for name in names])
        starts[[self.cls, self.pad, self.sep, self.mask]] = True
        return starts

    def encode(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """The tokens of each text, without special ones; at most `longest`, the first."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [text.ids[:longest] for text in encoded]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, without space around it."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False)).strip()

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in a text the characters of each of its tokens stand: first, and behind last."""
        return [
            tuple(span) for span in self._tokenizer.encode(text, add_special_tokens=False).offsets
        ]
