"""What finds items for requests: a generator of a bundle, or a cascade of several parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pyarrow as pa
from torch import Tensor

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES
from feature_store.errors import DataError
from feature_store.ids import as_ids
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Requests
from recsys.serving.bundle import Bundle
from recsys.serving.fallback import Fallback
from recsys.serving.golden import GOLDEN, same_list
from recsys.serving.listed import Listed
from recsys.serving.manifest import CascadeRecord, GeneratorRecord

ITEM_IDS = "item_ids.arrow"


class Finder(ABC):
    """Answers with places among n items, whose raw ids are `item_ids`. B requests."""

    bundle: Bundle
    name: str
    record: GeneratorRecord | CascadeRecord
    item_ids: pa.Array
    fallback: Fallback | None

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """Names of what finds items, one for each bit of an origin."""

    @abstractmethod
    def find(
        self,
        asked: Requests,
        k: int,
        exclude: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Listed:
        """The best items; `exclude` [B, L] holds places, padded with -1, and `allowed` [n] says
        which places anybody may get."""

    def check_index(self) -> None:  # noqa: B027 (many have none)
        """Measure again what an index promises. Raises DataError where it is not kept."""

    def place_of(self, item: Any) -> int:
        """Where an item stands among those that it finds. Raises DataError for another."""
        ids = self.item_ids
        try:
            place = int(Vocabulary(ids).encode(as_ids(pa.array([item]), ids.type))[0]) - 1
        except (pa.ArrowException, ValueError):
            place = -1
        if place < 0:
            raise DataError(
                f"item {item} is none of the {len(ids):,} that {self.name} can find: it had no "
                "event before, or is not in the log"
            )
        return place

    def golden(self) -> pa.Table:
        """Requests and the training stack's answers to them."""
        return read_parquet(self.bundle.part_file(self.name, GOLDEN))

    def find_exactly(self, asked: Requests, k: int, exclude: Tensor | None = None) -> Listed:
        """`find` without what an index may miss."""
        return self.find(asked, k, exclude)

    same_answer = staticmethod(same_list)

    def check_golden(self, golden: pa.Table, asked: Requests, exclude: Tensor) -> None:
        """Compare exact search for golden requests with their answers.

        Raises DataError naming the first request whose answer is not the training stack's.
        """
        k = max(len(ids) for ids in golden.column(EXPECTED_ITEMS).to_pylist())
        answers = self.find_exactly(asked, k, exclude)
        self._check_answers(golden, answers.scores, answers.places)

    def check_fallback(self, golden: pa.Table) -> None:
        """Compare the fallback with its golden answers, as `check_golden`.

        Raises DataError also where there are none.
        """
        if (self.fallback is None) != (golden.num_rows == 0):
            raise DataError(
                f"{self.bundle.folder}: its fallback and its golden requests do not belong "
                "together: do not serve it, export again"
            )
        if self.fallback is not None:
            k = max(len(ids) for ids in golden.column(EXPECTED_ITEMS).to_pylist())
            answers = self.fallback.top(self.fallback.segments_of(golden), k)
            self._check_answers(golden, answers.scores, answers.places)

    def _check_answers(self, golden: pa.Table, scores: Tensor, places: Tensor) -> None:
        expected_ids = golden.column(EXPECTED_ITEMS).to_pylist()
        expected_scores = golden.column(EXPECTED_SCORES).to_pylist()
        for row, (ids, wanted) in enumerate(zip(expected_ids, expected_scores, strict=True)):
            kept = places[row][places[row] >= 0]
            answered = self.item_ids.take(pa.array(kept.numpy())).to_pylist()
            if not self.same_answer(ids, wanted, answered, scores[row][: len(kept)].tolist()):
                raise DataError(
                    f"{self.bundle.folder}: golden request {row} answers {answered[:5]}..., "
                    f"the training stack answered {ids[:5]}...: do not serve it, export again"
                )
