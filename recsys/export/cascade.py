"""A cascade -> the part of a bundle that narrows down what its other parts find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.durable import write_parquet
from feature_store.vocabulary import Vocabulary
from recsys.cascade.cascade import Cascade
from recsys.cascade.options import CascadeConfig
from recsys.data.examples import Examples
from recsys.export.golden import GOLDEN_K, golden_requests, with_answers, write_fallback
from recsys.export.requests import features_of
from recsys.lists.pairs import Pairs
from recsys.serving.bundle import Bundle
from recsys.serving.cascade import CATEGORIES, WORTH
from recsys.serving.finder import ITEM_IDS
from recsys.serving.golden import GOLDEN
from recsys.serving.manifest import (
    About,
    CascadeRecord,
    DiversityRecord,
    GeneratorStage,
    RankerStage,
)
from recsys.serving.options import FallbackConfig
from recsys.serving.recommender import Recommender


@dataclass(frozen=True)
class CascadeExport:
    """Writes a cascade over the items [n] that it may find, `candidates`, whose stages are other
    parts of the bundle: `parts` are their names, `tasks` those that the rankers are asked for."""

    cascade: Cascade
    config: CascadeConfig
    examples: Examples
    candidates: Tensor
    parts: Mapping[str, str]
    tasks: Mapping[str, str]
    golden: int
    about: About
    fallback: FallbackConfig = FallbackConfig()  # noqa: RUF009 (frozen)

    noun: ClassVar[str] = CascadeRecord.noun

    @property
    def bytes(self) -> int:
        """None: the weights are those of the other parts."""
        return 0

    @property
    def features(self) -> tuple[str, ...]:
        """The items, and what is read of a request."""
        return features_of(self.cascade.inputs, self.examples.schema.item)

    def write(self, folder: Path) -> CascadeRecord:
        """Write the part's files. Raises DataError where no request can be answered."""
        cascade, examples, config = self.cascade.eval(), self.examples, self.config
        ids = examples.vocabulary(examples.schema.item).decode(self.candidates.numpy())
        Vocabulary(ids).save(folder / ITEM_IDS)
        if cascade.worth is not None:
            np.save(folder / WORTH, cascade.worth[self.candidates].numpy())
        if cascade.categories is not None:
            np.save(folder / CATEGORIES, cascade.categories[self.candidates].numpy())
        cascade.prepare(self.candidates)
        batch, requests = golden_requests(
            examples, cascade.inputs, self.golden, needs_history=cascade.needs_history
        )
        seen = Pairs.of_padded(batch.padded(HISTORY))
        golden = with_answers(requests, cascade.retrieve(batch, GOLDEN_K, seen), examples)
        fallback = None
        if cascade.needs_history:
            fallback, golden = write_fallback(
                folder, golden, examples, self.candidates, self.fallback
            )
        write_parquet(golden, folder / GOLDEN)
        diversity = config.diversity
        return CascadeRecord(
            about=self.about,
            protocol=examples.summary.protocol,
            protocol_fingerprint=examples.summary.fingerprint,
            train_roles=examples.summary.train_roles,
            inputs=cascade.inputs,
            embeddings=None,
            quantisation=None,
            generators={
                stage: GeneratorStage(part=self.parts[stage], budget=part.budget)
                for stage, part in config.generators.items()
            },
            coarse=self._ranker("coarse"),
            fine=self._ranker("fine"),
            worth=cascade.worth is not None,
            diversity=None
            if diversity is None
            else DiversityRecord(category=diversity.category, weight=diversity.weight),
            needs_history=cascade.needs_history,
            candidates=len(self.candidates),
            fallback=fallback,
        )

    def _ranker(self, stage: str) -> RankerStage | None:
        if stage not in self.parts:
            return None
        keep = self.cascade.keep if stage == "coarse" else None
        weight = self.cascade.place_weight if stage == "fine" else 0.0
        return RankerStage(
            part=self.parts[stage], task=self.tasks[stage], keep=keep, place_weight=weight
        )

    def verify(self, bundle: Bundle, name: str) -> None:
        """Ask the written part its golden requests. Raises DataError where an answer differs."""
        Recommender(bundle, name).verify()
