"""The old index, as a new model's examples know its items; and the old model, as it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from feature_store.errors import ConfigError, DataError
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary
from recsys.cascade.translation import Translation
from recsys.compatible.contract import OldItems
from recsys.compatible.options import bundle_folder
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.inputs import Input
from recsys.serving.bundle import Bundle
from recsys.serving.generator import Generator

_OPTION = "compatible_with.bundle"


@dataclass(frozen=True)
class OldIndex:
    """The old generator, and its items by the item rows of a new model's examples."""

    generator: Generator
    items: OldItems
    translation: Translation

    @classmethod
    def open(cls, folder: Path, part: str | None, examples: Examples) -> OldIndex:
        """Read a bundle, or that of a run, for a model that knows the items of `examples`.

        Raises DataError where there is none, and ConfigError where it has no vectors, or no item
        that is known here.
        """
        bundle = Bundle.open(bundle_folder(folder))
        generator = Generator.open(bundle, part)
        where = f"{_OPTION} = {folder}"
        if generator.record.items != "vectors":
            raise ConfigError(
                f"{where}: {generator.record.about.model} scores all items without vectors: only "
                "an index of vectors can be kept"
            )
        rows = torch.from_numpy(
            examples.vocabulary(examples.schema.item).encode(generator.item_ids).copy()
        )
        vectors = torch.zeros(examples.num_items, generator.record.width)
        known = torch.zeros(examples.num_items, dtype=torch.bool)
        vectors[rows], known[rows] = generator.items, True
        vectors[0], known[0] = 0, False  # of items that are not known here
        if not known.any():
            raise ConfigError(f"{where}: none of its items is known here: is it of another log?")
        features = [asked.feature for asked in generator.record.inputs if asked.feature]
        theirs = _Known(bundle.schema, bundle.vocabularies_of(generator.name))
        return cls(
            generator,
            OldItems(vectors, known),
            Translation.between(examples, theirs, features),
        )

    @property
    def unit(self) -> bool:
        """Whether all vectors have unit length."""
        lengths = self.generator.items.norm(dim=1)
        return bool((lengths - 1).abs().max() < 1e-3)

    def answers(self, inputs: tuple[Input, ...]) -> Callable[[Batch, int], Tensor]:
        """What the old model asks for the first n users of a batch that holds the columns of
        `inputs`: queries [n, d_old], one a user.

        Raises ConfigError where it reads what is not there.
        """
        own = {asked.name for asked in inputs}
        lacking = [a.name for a in self.generator.record.inputs if a.name not in own]
        if lacking:
            raise ConfigError(
                f"compatible_with.method.users: the old model reads {', '.join(lacking)}, which "
                "the new one does not: set users = 0, and pair items alone"
            )
        return partial(_answer, self)


def _answer(old: OldIndex, batch: Batch, count: int) -> Tensor:
    asked = old.generator.record.inputs
    theirs = old.translation.batch(batch.to(torch.device("cpu")), asked)  # where bundles answer
    inputs = {column.name: column.from_batch(theirs)[:count] for column in asked}
    vectors = old.generator.queries(inputs).vectors
    if vectors.shape[1] != 1:
        raise DataError(
            f"{old.generator.bundle.folder} has {vectors.shape[1]} vectors a user: set "
            "compatible_with.method.users = 0, and pair items alone"
        )
    return vectors.squeeze(1)


@dataclass(frozen=True)
class _Known:
    """What a bundle's part knows."""

    schema: Schema
    vocabularies: dict[str, Vocabulary]

    def vocabulary(self, feature: str) -> Vocabulary:
        return self.vocabularies[feature]
