"""Cascade: the part of a bundle that narrows down what its other parts find. B requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Requests
from recsys.lists.funnel import Diversity, Find, Score, Stage, funnel
from recsys.lists.scoring import score_by_pairs
from recsys.serving.bundle import Bundle
from recsys.serving.fallback import FALLBACK, Fallback
from recsys.serving.finder import ITEM_IDS, Finder
from recsys.serving.generator import Generator
from recsys.serving.golden import nearly_same_list
from recsys.serving.listed import Listed
from recsys.serving.manifest import CascadeRecord, RankerRecord, RankerStage
from recsys.serving.origins import found_by
from recsys.serving.scorer import PROGRAM

CASCADE, WORTH, CATEGORIES = "cascade", "worth.npy", "categories.npy"


@dataclass(frozen=True)
class FindingPart:
    """A generator with its budget; `here` [m] are its items' places in the cascade, `there` [n] the
    other way, -1 for none."""

    generator: Generator
    budget: int
    here: Tensor
    there: Tensor

    def finding(
        self, asked: Requests, exclude: Tensor | None, allowed: Tensor | None = None
    ) -> Find:
        """What finds places [B, m] of the cascade, of those that are `allowed` [n], and their
        scores."""

        def find() -> tuple[Tensor, Tensor]:
            """In the generator's own places."""
            generator = self.generator
            own = _asked(generator.bundle, generator.name, asked)
            hidden = None
            if exclude is not None:
                hidden = torch.where(exclude < 0, -1, self.there[exclude.clamp(min=0)])
            scores, places, _ = generator.find(own, self.budget, hidden, self._own(allowed))
            none = places < 0
            if generator.record.needs_history:
                item = generator.bundle.schema.item
                none |= torch.from_numpy(own.encoded(HISTORY, item).counts == 0).unsqueeze(1)
            items = self.here[places.clamp(min=0)].masked_fill(none, -1)
            return items, scores.masked_fill(none, float("-inf"))

        return find

    def at_least(self, budget: int) -> FindingPart:
        """The same with a budget that is not smaller."""
        return self if budget <= self.budget else replace(self, budget=budget)

    def _own(self, allowed: Tensor | None) -> Tensor | None:
        """Which of the generator's own places are `allowed` [n]: none that the cascade lacks."""
        return None if allowed is None else allowed[self.here.clamp(min=0)] & (self.here >= 0)


@dataclass(frozen=True)
class RankingPart:
    """A ranker, and its rows [n] of the cascade's items, 0 for those that it does not know."""

    bundle: Bundle
    name: str
    record: RankerRecord
    task: int
    program: torch.nn.Module
    rows: Tensor

    @classmethod
    def open(cls, bundle: Bundle, stage: RankerStage, item_ids: pa.Array) -> RankingPart:
        """The ranker of a stage."""
        name, record = bundle.part(RankerRecord, stage.part)
        rows = bundle.vocabularies_of(name)[bundle.schema.item].encode(item_ids)
        task = record.tasks.index(stage.task)
        program = bundle.program(name, PROGRAM)
        return cls(bundle, name, record, task, program, torch.from_numpy(rows.copy()))

    def scoring(self, asked: Requests) -> Score:
        """What gives the logits [B, M] of places [B, M]."""

        def begin(inputs: dict[str, Tensor]) -> Score:
            return lambda rows: self.program(inputs, rows)[:, :, self.task]

        @torch.no_grad()
        def score(places: Tensor) -> Tensor:
            """In the ranker's own rows."""
            own = _asked(self.bundle, self.name, asked)
            inputs = {column.name: column.from_requests(own) for column in self.record.inputs}
            return score_by_pairs(inputs, self.rows[places.clamp(min=0)], begin)

        return score


@dataclass(frozen=True)
class Cascade(Finder):
    """An opened cascade: its parts, and n items with what they are worth and their categories."""

    bundle: Bundle
    name: str
    record: CascadeRecord
    item_ids: pa.Array
    generators: Mapping[str, FindingPart]
    coarse: RankingPart | None
    fine: RankingPart | None
    worth: Tensor | None
    diversity: Diversity | None
    fallback: Fallback | None

    same_answer = staticmethod(nearly_same_list)

    @classmethod
    def open(cls, bundle: Bundle, name: str | None = None) -> Cascade:
        """The cascade of that name, by default the only one, and all its parts.

        Raises DataError naming the part or the file that cannot be read.
        """
        name, record = bundle.part(CascadeRecord, name)
        file = partial(bundle.part_file, name)
        item_ids = Vocabulary.load(file(ITEM_IDS)).values
        rankers = {
            key: None if stage is None else RankingPart.open(bundle, stage, item_ids)
            for key, stage in (("coarse", record.coarse), ("fine", record.fine))
        }
        diversity = None
        if record.diversity is not None:
            categories = torch.from_numpy(np.load(file(CATEGORIES)))
            diversity = Diversity(categories, record.diversity.weight)
        return cls(
            bundle=bundle,
            name=name,
            record=record,
            item_ids=item_ids,
            generators={
                stage: _finding(Generator.open(bundle, part.part), part.budget, item_ids)
                for stage, part in record.generators.items()
            },
            coarse=rankers["coarse"],
            fine=rankers["fine"],
            worth=None if not record.worth else torch.from_numpy(np.load(file(WORTH))),
            diversity=diversity,
            fallback=None
            if record.fallback is None
            else Fallback.read(file(FALLBACK), item_ids, record.fallback),
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """The stages of its generators."""
        return tuple(self.generators)

    def check_index(self) -> None:
        """Of every generator."""
        for part in self.generators.values():
            part.generator.check_index()

    def stages(
        self,
        asked: Requests,
        k: int,
        exclude: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Iterator[Stage]:
        """What each stage leaves, as soon as it is done: places, -1 for none.

        Generators find what is `allowed` [n] alone, so that as many candidates go on as without;
        and where k is more than a budget or more than a ranker keeps, k are found and kept.
        """
        coarse, fine = self.record.coarse, self.record.fine
        keep, least = None if coarse is None else coarse.keep, 0 if allowed is None else k
        yield from funnel(
            {
                name: part.at_least(least).finding(asked, exclude, allowed)
                for name, part in self.generators.items()
            },
            k,
            coarse=None if self.coarse is None else self.coarse.scoring(asked),
            keep=None if keep is None else max(keep, least),
            fine=None if self.fine is None else self.fine.scoring(asked),
            place_weight=0.0 if fine is None else fine.place_weight,
            worth=self.worth,
            diversity=self.diversity,
        )

    def find(
        self,
        asked: Requests,
        k: int,
        exclude: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Listed:
        """The first k of the last stage, and who found them."""
        stages = list(self.stages(asked, k, exclude, allowed))
        items = stages[-1].items[:, :k]
        lists = [stage.items for stage in stages[: len(self.generators)]]
        return Listed(stages[-1].scores[:, :k].float(), items, found_by(items, lists))


def _asked(bundle: Bundle, part: str, asked: Requests) -> Requests:
    """The same requests in the ids of a part; what is encoded is shared where they are the same."""
    own = bundle.vocabularies_of(part)
    return asked if own is bundle.vocabularies else Requests(asked.table, own)


def _finding(generator: Generator, budget: int, item_ids: pa.Array) -> FindingPart:
    here = Vocabulary(item_ids).encode(generator.item_ids) - 1
    there = Vocabulary(generator.item_ids).encode(item_ids) - 1
    return FindingPart(generator, budget, *(torch.from_numpy(of.copy()) for of in (here, there)))
