"""Bundle: a folder that answers equally without the training stack.

manifest.json          what is in here, checksums, versions, figures
manifest.sig           where it was signed, the signature of that
schema.json            the log's schema
vocabulary/*.arrow     raw ids of every input
catalogue.parquet      what people read about items
users.arrow            the newest history and features of known users
parts/NAME/            what answers, one or more
    golden.parquet     requests with the training stack's answers, replayed on loading
  of a generator:
    user.pt2           torch.export: request tensors -> vectors and weights of interests
    items.npy          vectors [n, D] of the candidates, and item_ids.arrow their raw ids; where
                       the program scores all D item rows itself, the rows [n] of the candidates
    index.faiss        where FAISS searches
    queries.npy        where a recall was promised, vectors [200, D] that it is measured with
    fallback.parquet   items and scores that answer where a history is needed, and nothing is known
    item.pt2           of one that reads texts: tokens and their types -> vectors of new items
    tokenizer/         how their texts become tokens
    words.arrow        of one that scores by words, which they are, and of one with frozen vectors
                       of texts by TF-IDF; words.npz: of these the weights and directions of
                       words; described.pt2: item rows, vectors of texts -> vectors of items
    old_space.npy      of one made compatible with an older bundle: vectors of its items there
  of a ranker:
    ranker.pt2         torch.export: request tensors -> logits
    reasons.pt2        of one that explains: -> contributions of concepts, and bias
    concepts.arrow     their names
  of a cascade, whose stages are other parts:
    item_ids.arrow     raw ids of its candidates
    worth.npy          what each of them is worth, where lists are ordered by money
    categories.npy     their categories, where lists are made diverse
    fallback.parquet   as of a generator
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

import torch

from feature_store.errors import DataError
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary
from recsys.serving.files import check_files, plain_file
from recsys.serving.holding import Held, hold
from recsys.serving.manifest import (
    MANIFEST,
    CascadeRecord,
    GeneratorRecord,
    Manifest,
    RankerRecord,
)
from recsys.serving.program import open_program
from recsys.serving.signature import sign
from recsys.serving.users import KnownUsers, UsersFile, check_columns

SCHEMA, CATALOGUE, USERS, PARTS = "schema.json", "catalogue.parquet", "users.arrow", "parts"

Record = TypeVar("Record", GeneratorRecord, RankerRecord, CascadeRecord)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its files are those of its manifest, and what its parts share is read.

    While it lives no newer version removes its folder, see `recsys.serving.releases`.
    """

    folder: Path
    manifest: Manifest
    held: Held | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str, *, signed_by: Path | None = None) -> Bundle:
        """Read a bundle and check its files against the manifest, and that against a public key,
        `signed_by`, if one is given. A link is followed once, so that all is read of one bundle.

        Raises DataError naming the file that is missing, altered, or outside the folder, or the
        format that is another, or that it was not signed by that key.
        """
        folder, held = hold(Path(folder))
        manifest = Manifest.load(folder, signed_by)
        check_files(folder, manifest.files)
        return cls.of_checked_files(folder, manifest, held)

    @classmethod
    def of_checked_files(cls, folder: Path, manifest: Manifest, held: Held | None = None) -> Bundle:
        """A bundle whose files were compared with its manifest already. Raises DataError where the
        manifest does not fit itself."""
        opened = cls(folder, manifest, held)
        opened._check_vocabularies()
        return opened

    def sign(self, private_key: Path) -> None:
        """Sign the bundle as it was opened. Raises ConfigError as `recsys.serving.signature`."""
        contents = plain_file(self.folder, MANIFEST).read_bytes()
        if Manifest.model_validate_json(contents) != self.manifest:
            raise DataError(f"{self.folder} was altered since it was opened")
        sign(self.folder, contents, private_key)

    def file(self, name: str) -> Path:
        """A file of the bundle. Raises DataError for one that the manifest does not list."""
        if name not in self.manifest.files:
            raise DataError(f"{self.folder}: {name} is not in its manifest: export it again")
        return self.folder / name

    def part(self, kind: type[Record], name: str | None = None) -> tuple[str, Record]:
        """The part of a kind and its name; by default the only one of its kind, or the one that is
        called as the kind is.

        Raises DataError naming the parts that are there.
        """
        parts = self.manifest.parts
        there = ", ".join(f"{key} (a {part.noun})" for key, part in parts.items()) or "none"
        if name is not None:
            chosen = parts.get(name)
            if not isinstance(chosen, kind):
                raise DataError(
                    f"{self.folder} has no {kind.noun} called {name!r}; its parts: {there}"
                )
            return name, chosen
        alike = [(key, part) for key, part in parts.items() if isinstance(part, kind)]
        alike = [(key, part) for key, part in alike if key == kind.noun] or alike
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise DataError(
                f"{self.folder} has {len(alike)} parts of kind {kind.noun}: name one; its parts: "
                f"{there}"
            )
        verbs = dict.fromkeys(f"`{part.verb}`" for part in parts.values())
        raise DataError(
            f"{self.folder} has no {kind.noun}; its parts: {there}: ask it with {', '.join(verbs)}"
        )

    def program(self, part: str, name: str) -> torch.nn.Module:
        """An exported program of a part."""
        return open_program(self.part_file(part, name))

    def part_file(self, part: str, name: str) -> Path:
        """A file of a part."""
        return self.file(str(PurePosixPath(PARTS, part, name)))

    def _check_vocabularies(self) -> None:
        """Raises DataError naming the first feature whose raw ids a part lacks."""
        inputs = [asked for part in self.manifest.parts.values() for asked in part.inputs]
        read = {self.schema.item, *(asked.feature for asked in inputs if asked.feature is not None)}
        for feature in sorted(read - self.manifest.vocabularies.keys()):
            raise DataError(
                f"{self.folder}: {MANIFEST} names no vocabulary of {feature!r}, which a part reads"
            )

    @cached_property
    def schema(self) -> Schema:
        """The log's schema."""
        return Schema.load(self.file(SCHEMA))

    @cached_property
    def catalogue(self) -> Path | None:
        """The file of the catalogue's items, if there is one."""
        return self.file(CATALOGUE) if CATALOGUE in self.manifest.files else None

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Of every feature that a part reads; features that share a table share it."""
        files = self.manifest.vocabularies
        read = {name: Vocabulary.load(self.file(name)) for name in set(files.values())}
        return {feature: read[name] for feature, name in files.items()}

    def vocabularies_of(self, part: str) -> dict[str, Vocabulary]:
        """As a part reads and answers: those of the bundle, but where it has its own."""
        if part not in self._own_vocabularies:
            files = self.manifest.parts[part].vocabularies
            own = {feature: Vocabulary.load(self.file(name)) for feature, name in files.items()}
            self._own_vocabularies[part] = (
                {**self.vocabularies, **own} if own else self.vocabularies
            )
        return self._own_vocabularies[part]

    @cached_property
    def _own_vocabularies(self) -> dict[str, dict[str, Vocabulary]]:
        return {}

    @cached_property
    def users(self) -> KnownUsers:
        """What is known of users."""
        return UsersFile(self.file(USERS), self.schema.user)

    def users_of(self, store: KnownUsers) -> KnownUsers:
        """Those of a store. Raises DataError where it lacks what the bundle's own have."""
        check_columns(store, self.users.schema)
        return store
