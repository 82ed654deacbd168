"""Cascade: several finished models as one retriever. B requests, M candidates, N item rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from feature_store.errors import ConfigError
from recsys.cascade.generator import Generator
from recsys.cascade.ranking import Ranking
from recsys.data.batch import Batch
from recsys.data.examples import Examples, Interactions
from recsys.inputs import Input
from recsys.lists.funnel import Diversity, Stage, funnel
from recsys.lists.merging import BY_SCORE, Merge
from recsys.lists.pairs import Pairs
from recsys.model import Model
from recsys.retrievers.base import Candidates, Retriever


class Cascade(Model):
    """Generators with budgets, a coarse ranker that keeps `keep` of what they find, a fine ranker
    that orders those, and a step that makes lists diverse; see `recsys.lists.funnel`.

    It is made of models that are finished, and learns nothing itself. `worth` [N] is what the fine
    ranker's probabilities are multiplied by, `place_weight` what the candidates' order counts
    beside it. Of what its parts read of a request `known` names what there is; the rest is unknown
    to them.
    """

    merge: Merge = BY_SCORE
    probabilities: bool = False
    worth: Tensor | None
    categories: Tensor | None

    def __init__(
        self,
        generators: Mapping[str, Generator],
        *,
        coarse: Ranking | None = None,
        keep: int | None = None,
        fine: Ranking | None = None,
        place_weight: float = 0.0,
        worth: Tensor | None = None,
        diversity: Diversity | None = None,
        known: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(generators)
        self.generators = nn.ModuleList(generators.values())
        self.coarse, self.keep, self.fine = coarse, keep, fine
        self.place_weight = place_weight
        self.weight = 0.0 if diversity is None else diversity.weight
        categories = None if diversity is None else diversity.categories
        self.register_buffer("categories", categories, persistent=False)
        self.register_buffer("worth", worth, persistent=False)
        inputs = _merged(chain.from_iterable(part.inputs for part in self._parts()))
        self.unknown = tuple(n for n in inputs if known is not None and n not in known)
        self.inputs = tuple(asked for name, asked in inputs.items() if name not in self.unknown)
        if self.unknown:
            self.notes = (
                f"unknown to the cascade's parts: {', '.join(self.unknown)}, which only "
                "events tell",
            )
        self.needs_history = all(part.needs_history for part in generators.values())
        self._prepared = False

    def _parts(self) -> Iterator[Generator | Ranking]:
        yield from self._generators()
        yield from (part for part in (self.coarse, self.fine) if part is not None)

    def _generators(self) -> Iterator[Generator]:
        for part in self.generators:
            assert isinstance(part, Generator)
            yield part

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Nothing: its parts are finished."""

    def variants(self) -> Mapping[str, Retriever]:
        """Each generator alone, within its budget."""
        if len(self.names) == 1 and self.fine is None:
            return {}
        alone = zip(self.names, self._generators(), strict=True)
        return {name: _Alone({name: part}, known=_names(self.inputs)) for name, part in alone}

    def prepare(self, candidates: Tensor) -> None:
        """Fix the item rows that may be retrieved."""
        for part in self._generators():
            part.prepare(candidates)
        self._prepared = True

    @torch.no_grad()
    def stages(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Iterator[Stage]:
        """What each stage leaves, as soon as it is done: item rows, 0 for none. The last one's
        first k are the list.

        Raises RuntimeError before `prepare`.
        """
        if not self._prepared:
            raise RuntimeError("call prepare(candidates) before retrieve()")
        parts, of_items = zip(self.names, self._generators(), strict=True), self.categories
        stages = funnel(
            {name: part.finding(batch, exclude) for name, part in parts},
            k,
            coarse=None if self.coarse is None else self.coarse.scoring(batch),
            keep=self.keep,
            fine=None if self.fine is None else self.fine.scoring(batch),
            place_weight=self.place_weight,
            worth=self.worth,
            diversity=None if of_items is None else Diversity(of_items, self.weight),
        )
        for stage in stages:
            yield stage._replace(items=stage.items.clamp(min=0))

    def retrieve(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Candidates:
        """The k best candidates of each user, without the item rows that `exclude` pairs it with.

        Raises RuntimeError before `prepare`.
        """
        *_, last = self.stages(batch, k, exclude)
        return Candidates(last.items[:, :k], last.scores[:, :k].float())


class _Alone(Cascade):
    """A generator as a retriever of one stage."""

    def stages(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Iterator[Stage]:
        """The list alone."""
        *_, last = super().stages(batch, k, exclude)
        yield last


def _names(inputs: tuple[Input, ...]) -> frozenset[str]:
    return frozenset(asked.name for asked in inputs)


def _merged(inputs: Iterator[Input]) -> dict[str, Input]:
    """By name; of lists the longest, which every part cuts for itself.

    Raises ConfigError where two parts read different things under one name.
    """
    merged: dict[str, Input] = {}
    for asked in inputs:
        other = merged.setdefault(asked.name, asked)
        if type(other) is not type(asked) or other.feature != asked.feature:
            raise ConfigError(
                f"two parts of the cascade read different things under the name {asked.name!r}"
            )
        if other.length is not None and (asked.length is None or asked.length > other.length):
            merged[asked.name] = asked
    return merged
