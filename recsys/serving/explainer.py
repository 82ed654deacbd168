"""Explainer: raw requests in, what concepts contribute to their logits out, from a bundle alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.errors import DataError
from feature_store.ids import as_ids
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.serving.bundle import Bundle
from recsys.serving.golden import EXPECTED_BIAS, EXPECTED_CONTRIBUTIONS, GOLDEN, TOLERANCE
from recsys.serving.requests import frame_of, table_of
from recsys.serving.scorer import Scorer
from recsys.serving.users import KnownUsers

REASONS, CONCEPTS = "reasons.pt2", "concepts.arrow"
CONCEPT, OTHERS, BIAS, CALIBRATION = "concept", "others", "bias", "calibration"


class Reason(NamedTuple):
    """A summand of the logit of a request, which is counted from 0: a concept's, that of all others
    together, the bias, or what the calibration adds."""

    request: int
    kind: str
    concept: str | None
    contribution: float


class Explainer(Scorer):
    """Scores, and says why: answers from a ranker of a bundle that explains its logits.

    Raises DataError for one that does not.
    """

    def __init__(
        self, bundle: Bundle, part: str | None = None, users: KnownUsers | None = None
    ) -> None:
        super().__init__(bundle, part, users)
        if not self.record.explains:
            raise DataError(
                f"{bundle.folder}: the logits of {self.record.about.model} are not made of "
                "concepts; those of the ranker sesa are"
            )
        self.reasons = bundle.program(self.part, REASONS)
        names = Vocabulary.load(bundle.part_file(self.part, CONCEPTS)).values
        self.concepts: tuple[str, ...] = tuple(names.to_pylist())

    def explain(self, requests: pd.DataFrame | pa.Table, most: int = 10) -> pd.DataFrame:
        """`explain_table` of a frame or a table, as a frame."""
        return frame_of(self.explain_table(table_of(requests), most))

    def explain_table(self, requests: pa.Table, most: int = 10) -> pa.Table:
        """The `Reason`s of requests, one a row: their sum over a request is its logit.

        Of a request the `most` concepts that contribute most, for or against, come first, what all
        others contribute together next, then the bias, and last what the calibration adds to the
        logit, where there is one. Raises DataError as `score_table`.
        """
        if most < 1:
            raise DataError(f"at least 1 concept must be named, not {most}")
        asked = self._pairs(requests)
        contributions, bias = self._contributions(*asked)
        added = self.logits(*asked)[:, 0, 0] - contributions.sum(1) - bias
        reasons = []
        for request, each in enumerate(contributions.numpy()):
            reasons += self._largest(request, each, most)
            reasons.append(Reason(request, BIAS, None, float(bias[request])))
            if self.record.calibrated:
                reasons.append(Reason(request, CALIBRATION, None, float(added[request])))
        columns = map(list, zip(*reasons, strict=True))
        return pa.table(dict(zip(Reason._fields, columns, strict=True)))

    def pair(self, user: Any, item: Any) -> pa.Table:
        """The request of a known user and a known item. Raises DataError for others."""
        schema = self.bundle.schema
        known = self.known.of(pa.array([user]), [schema.user])
        if not known.column(schema.user).is_valid()[0].as_py():
            raise DataError(f"unknown user: {user}")
        items = self.bundle.vocabularies_of(self.part)[schema.item]
        try:
            known_item = bool(items.encode(as_ids(pa.array([item]), items.values.type))[0])
        except (pa.ArrowException, ValueError):
            known_item = False
        if not known_item:
            raise DataError(f"unknown item: {item}")
        return pa.table({schema.user: [user], schema.item: [item]})

    def verify(self) -> None:
        """Replay the golden requests. Raises DataError where a logit or a reason differs."""
        super().verify()
        golden = read_parquet(self.bundle.part_file(self.part, GOLDEN))
        parts = self._contributions(golden, self._items(golden))
        columns = (golden.column(name) for name in (EXPECTED_CONTRIBUTIONS, EXPECTED_BIAS))
        for of_part, column in zip(parts, columns, strict=True):
            expected = torch.tensor(column.to_pylist(), dtype=torch.float64)
            slack = TOLERANCE * expected.abs().clamp(min=1)
            wrong = ((of_part - expected).abs() > slack).reshape(len(expected), -1).any(1)
            if wrong.any():
                raise DataError(
                    f"{self.bundle.folder}: golden request {int(wrong.int().argmax())} has other "
                    "reasons than the training stack gave: do not serve it, export again"
                )

    def _contributions(self, requests: pa.Table, items: Tensor) -> tuple[Tensor, Tensor]:
        """Of concepts [n, C], and the bias [n], for an item [n, 1] each."""
        with torch.no_grad():
            contributions, bias = self.reasons(self._inputs(requests), items)
        return contributions.squeeze(1), bias.squeeze(1)

    def _largest(self, request: int, contributions: np.ndarray, most: int) -> list[Reason]:
        order = np.argsort(-np.abs(contributions), kind="stable")
        named, others = order[:most], order[most:]
        reasons = [
            Reason(request, CONCEPT, self.concepts[place], float(contributions[place]))
            for place in named.tolist()
        ]
        if len(others):
            reasons.append(Reason(request, OTHERS, None, float(contributions[others].sum())))
        return reasons
