"""What is put into other formats: a part of a bundle, which knows its golden answers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor
from torch.export import ExportedProgram

from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from recsys.serving.bundle import Bundle
from recsys.serving.generator import PROGRAM as USER_PROGRAM
from recsys.serving.generator import Generator
from recsys.serving.golden import GOLDEN, TOLERANCE
from recsys.serving.manifest import CascadeRecord, GeneratorRecord, RankerRecord
from recsys.serving.program import open_exported
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import PROGRAM as RANKER_PROGRAM
from recsys.serving.scorer import Scorer

Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""A program as any engine runs it: tensors by name -> its outputs in their order."""


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Golden requests of another engine: a wrong answer as an error that names `what` it is of."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{what} was not kept, it answers otherwise: {error}") from None


class Source(ABC):
    """A generator or a ranker of a bundle.

    `stem` is what files of its program are called, `outputs` the names and shapes of what the
    program answers with, where B stands for requests, and `asked` its golden requests as tensors.
    """

    stem: ClassVar[str]
    program_file: ClassVar[str]
    bundle: Bundle
    name: str
    record: GeneratorRecord | RankerRecord
    asked: dict[str, Tensor]
    outputs: dict[str, list[int | str]]

    @abstractmethod
    def program(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the bundle's own program answers."""

    @abstractmethod
    def _replay(self, run: Run) -> None:
        """Ask another program the golden requests. Raises DataError where an answer differs."""

    @property
    def model(self) -> str:
        """The retriever or ranker that it is."""
        return self.record.about.model

    def exported(self) -> ExportedProgram:
        """The program, for whoever translates it."""
        return open_exported(self.bundle.part_file(self.name, self.program_file))

    def part_file(self, name: str) -> Path:
        """A file of the part."""
        return self.bundle.part_file(self.name, name)

    def check(self, run: Run, what: str) -> None:
        """Ask another program the golden requests, all at once and the first of them alone.

        Raises DataError, which names `what` it is, where an answer is not the training stack's.
        """
        with answering(what):
            self._replay(run)
        alone = {name: tensor[:1] for name, tensor in self.asked.items()}
        for output, mine, other in zip(self.outputs, self.program(alone), run(alone), strict=True):
            slack = TOLERANCE * mine.abs().max().clamp(min=1)
            if mine.shape != other.shape or not bool(((mine - other).abs() <= slack).all()):
                raise DataError(
                    f"{what} was not kept: asked a single request its {output} "
                    f"{list(other.shape)} differ from the bundle's {list(mine.shape)}"
                )


class GeneratorSource(Source):
    """A program for users."""

    stem = "user"
    program_file = USER_PROGRAM

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.bundle, self.name = bundle, name
        self.recommender = Recommender(bundle, name)
        self.generator = self.recommender.generator
        self.record: GeneratorRecord = self.generator.record
        self.asked, _ = self.recommender.encode(self.generator.golden())
        vectors, _ = self.program(self.asked)
        interests = vectors.shape[1]
        self.outputs = {
            "vectors": ["requests", interests, self.record.width],
            "weights": ["requests", interests],
        }

    def program(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Vectors [B, K, D] and weights [B, K]."""
        queries = self.generator.queries(dict(inputs))
        return queries.vectors, queries.weights

    def check_items(self, items: Tensor, item_ids: pa.Array, what: str) -> None:
        """Search other items for the golden requests, as `check`."""
        self.check_generator(replace(self.generator, items=items, item_ids=item_ids), what)

    def check_generator(self, other: Generator, what: str) -> None:
        """Ask another generator the golden requests, as `check`."""
        with answering(what):
            self._verify(other)

    def _replay(self, run: Run) -> None:
        self._verify(replace(self.generator, program=run))  # type: ignore[arg-type]

    def _verify(self, other: Generator) -> None:
        recommender = copy.copy(self.recommender)
        recommender.finder = other
        recommender.verify()


class RankerSource(Source):
    """A program for pairs of a request and an item."""

    stem = "ranker"
    program_file = RANKER_PROGRAM

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.bundle, self.name = bundle, name
        self.scorer = Scorer(bundle, name)
        self.record: RankerRecord = self.scorer.record
        self.items = "items"  # the name of the tensor, unless a feature is called so
        while self.items in {asked.name for asked in self.record.inputs}:
            self.items += "_"
        features, items = self.scorer.encode(read_parquet(self.part_file(GOLDEN)))
        self.asked = {**features, self.items: items}
        self.outputs = {"logits": ["requests", "items", len(self.record.tasks)]}

    def program(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Logits [B, M, tasks]."""
        features = dict(inputs)
        items = features.pop(self.items)
        with torch.no_grad():
            return (self.scorer.program(features, items),)

    def _replay(self, run: Run) -> None:
        def program(inputs: dict[str, Tensor], items: Tensor) -> Tensor:
            return run({**inputs, self.items: items})[0]

        other: Any = copy.copy(self.scorer)
        other.program = program
        other.verify()


def source_of(bundle: Bundle, part: str | None = None) -> Source:
    """The generator or the ranker of that name; by default the only generator, or else the only
    ranker.

    Raises DataError naming the parts that are there.
    """
    record = None if part is None else bundle.manifest.parts.get(part)
    if isinstance(record, CascadeRecord):
        stages = [name for name in bundle.manifest.parts if name != part]
        raise DataError(
            f"{bundle.folder}: {part} is a cascade, which other engines cannot run as a whole: "
            f"convert its stages one by one, with --part {' or --part '.join(stages)}"
        )
    kinds = [type(record) for record in bundle.manifest.parts.values()]
    if isinstance(record, RankerRecord) or (part is None and GeneratorRecord not in kinds):
        return RankerSource(bundle, bundle.part(RankerRecord, part)[0])
    return GeneratorSource(bundle, bundle.part(GeneratorRecord, part)[0])
