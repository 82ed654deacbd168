"""A bundle that answers: opened, verified, and asked once, before it gets any question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from feature_store.columns import HISTORY, HISTORY_TIME, TIME
from feature_store.errors import DataError
from recsys.inputs import Times
from recsys.server.neighbours import Neighbours
from recsys.serving.bundle import Bundle
from recsys.serving.cascade import Cascade
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.files import digest, opening
from recsys.serving.generator import Generator
from recsys.serving.manifest import MANIFEST, GeneratorRecord, RankerRecord
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer
from recsys.serving.users import KnownUsers

_VERSION = 12  # hex digits


@dataclass(frozen=True)
class Live:
    """A bundle and what answers from it. It goes when its last question has been answered."""

    bundle: Bundle
    version: str
    recommender: Recommender | None
    scorers: Mapping[str, Scorer]
    neighbours: Neighbours | None
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def open(
        cls,
        folder: Path,
        signed_by: Path | None = None,
        users: KnownUsers | None = None,
        measure_index: bool = True,
    ) -> Live:
        """Open a bundle and replay the golden requests of all that answers; what an index promises
        is measured again where this is another kind of machine, if `measure_index`. What is known
        of users comes from a store, by default from the bundle's own.

        Raises DataError where it must not be served.
        """
        with opening(folder):
            bundle = Bundle.open(folder, signed_by=signed_by)
            version = digest(folder / MANIFEST)[:_VERSION]
            parts = bundle.manifest.parts
            rankers = [name for name, part in parts.items() if isinstance(part, RankerRecord)]
            scorers = {name: Scorer(bundle, name, users) for name in rankers}
            recommender = Recommender(bundle, users=users) if len(rankers) < len(parts) else None
            for answering in (*scorers.values(), *([recommender] if recommender else [])):
                answering.verify()
                if measure_index:
                    answering.check_index()
            if recommender is not None:
                recommender.read_ahead()
        return cls(bundle, version, recommender, scorers, _neighbours(recommender))

    @cached_property
    def features(self) -> frozenset[str]:
        """What a question may say of its user: the log's features of users, and what parts read."""
        schema = self.bundle.schema
        parts = self.bundle.manifest.parts.values()
        names = {asked.name for part in parts for asked in part.inputs}
        names |= {feature.name for feature in schema.of_side("user")}
        items = {feature.name for feature in schema.of_side("item")}
        return frozenset(names - items - {schema.user, HISTORY, HISTORY_TIME, TIME})

    @cached_property
    def reads_times(self) -> bool:
        """Whether a part looks at when the events of a history were."""
        parts = self.bundle.manifest.parts.values()
        return any(isinstance(asked, Times) for part in parts for asked in part.inputs)

    @cached_property
    def user_type(self) -> pa.DataType:
        """The type of the log's ids of users."""
        return self.bundle.users.of(pa.nulls(0), [self.bundle.schema.user]).schema.field(0).type

    def recommends(self) -> Recommender:
        """What answers with items. Raises DataError where nothing does."""
        if self.recommender is None:
            self.bundle.part(GeneratorRecord)  # says what is there
            raise AssertionError("unreachable")
        return self.recommender

    def scores(self, part: str | None) -> Scorer:
        """What answers with probabilities. Raises DataError where nothing does, or several do."""
        name, _ = self.bundle.part(RankerRecord, part)
        return self.scorers[name]

    def finds_similar(self) -> Neighbours:
        """What answers with neighbours. Raises DataError where no part has vectors of items."""
        if self.neighbours is None:
            raise DataError("this bundle has no vectors of items to compare")
        return self.neighbours


def _neighbours(recommender: Recommender | None) -> Neighbours | None:
    """Of the first generator that has vectors."""
    if recommender is None:
        return None
    bundle, finder = recommender.bundle, recommender.finder
    generators: list[Generator] = []
    if isinstance(finder, Generator):
        generators = [finder]
    elif isinstance(finder, Cascade):
        generators = [part.generator for part in finder.generators.values()]
    with_vectors = [each for each in generators if each.record.items == "vectors"]
    if not with_vectors:
        return None
    generator, catalogue = with_vectors[0], recommender.catalogue
    if generator is not finder:  # whose places are its own
        catalogue = ItemCatalogue(bundle.catalogue, bundle.schema, generator.item_ids)
    return Neighbours(generator, catalogue)
