"""A trained ranker -> a ranker of a bundle, with the training stack's own logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from feature_store.durable import write_parquet
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.embeddings.options import QuantisationConfig
from recsys.export.programs import export_program, least_bytes, on_plain_tables, quantise_tables
from recsys.export.requests import features_of, raw_requests
from recsys.export.sample_quality import sample_auc
from recsys.inputs import Id
from recsys.rankers.base import Explanation, Ranker
from recsys.rankers.calibrated import Calibrated
from recsys.serving.bundle import Bundle
from recsys.serving.explainer import CONCEPTS, REASONS, Explainer
from recsys.serving.golden import EXPECTED_BIAS, EXPECTED_CONTRIBUTIONS, GOLDEN, expected_of
from recsys.serving.manifest import About, RankerRecord
from recsys.serving.scorer import COSTS, PRICES, PROGRAM, Scorer


class _Program(nn.Module):
    """What torch.export sees of a ranker."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M]."""
        return self.ranker.score(self.ranker.encode(inputs), items)


class _Reasons(_Program):
    """What torch.export sees of a ranker that explains."""

    def forward(  # type: ignore[override]
        self, inputs: dict[str, Tensor], items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Contributions [B, M, C] and bias [B, M] of item rows [B, M]."""
        contributions, bias = self.ranker.explain(inputs, items)
        return contributions, bias


@dataclass(frozen=True)
class RankerExport:
    """Writes a ranker as a part of a bundle; `golden` is as of `GeneratorExport`."""

    ranker: Ranker
    examples: Examples
    golden: int
    about: About
    quantisation: QuantisationConfig = QuantisationConfig()  # noqa: RUF009 (frozen)

    noun: ClassVar[str] = RankerRecord.noun

    @property
    def bytes(self) -> int:
        """Of its weights, at least; a program that explains has them once more."""
        programs = 2 if self.ranker.concepts else 1
        return programs * least_bytes(self.ranker, self.quantisation)

    @property
    def features(self) -> tuple[str, ...]:
        """The item, and what the program reads."""
        return features_of(self.ranker.inputs, self.ranker.item)

    @torch.no_grad()
    def write(self, folder: Path) -> RankerRecord:
        """Write the part's files.

        Raises ConfigError where `quantisation` names a table that is not there.
        """
        ranker, examples = self.ranker.eval(), self.examples
        small: Ranker = on_plain_tables(ranker)
        sample = self.quantisation.sample
        quantised = quantise_tables(
            small, self.quantisation, lambda: sample_auc(small, examples, sample), "AUC"
        )
        chosen = read_parquet(examples.folder / "test.parquet")
        chosen = chosen.slice(0, self.golden).combine_chunks()
        read = (*ranker.inputs, Id(ranker.item))
        batch = Block.of(chosen.select([asked.name for asked in read])).to_batch()
        requests = raw_requests(examples, chosen, read)
        trusted = ranker if quantised is None else small
        logits = trusted.predict(batch)
        for task, expected in zip(ranker.tasks, logits.T.numpy(), strict=True):
            requests = requests.append_column(expected_of(task), pa.array(expected, pa.float32()))
        items = batch.id(ranker.item).unsqueeze(1)
        small.freeze()
        export_program(_Program(small), ranker, batch, folder / PROGRAM, items)
        if ranker.concepts:
            export_program(_Reasons(small), ranker, batch, folder / REASONS, items)
            Vocabulary(pa.array(ranker.concepts, pa.string())).save(folder / CONCEPTS)
            inputs = ranker.inputs_of(batch)
            requests = _with_reasons(requests, trusted.explain(inputs, items))
        write_parquet(requests, folder / GOLDEN)
        money = {PRICES: examples.last_prices, COSTS: examples.last_costs}
        for name, of_items in money.items():
            if of_items is not None:
                np.save(folder / name, of_items.numpy())
        layout = getattr(getattr(ranker, "embeddings", None), "layout", None)
        return RankerRecord(
            about=self.about,
            protocol=examples.summary.protocol,
            protocol_fingerprint=examples.summary.fingerprint,
            train_roles=examples.summary.train_roles,
            inputs=ranker.inputs,
            embeddings=layout.to_dict() if layout else None,
            quantisation=quantised,
            tasks=ranker.tasks,
            calibrated=isinstance(ranker, Calibrated),
            explains=bool(ranker.concepts),
            priced=money[PRICES] is not None,
            costed=money[COSTS] is not None,
        )

    def verify(self, bundle: Bundle, name: str) -> None:
        """Ask the written part its golden requests. Raises DataError where a logit differs."""
        (Explainer if self.ranker.concepts else Scorer)(bundle, name).verify()


def _with_reasons(requests: pa.Table, explained: Explanation) -> pa.Table:
    """The requests with the reasons of an item of each beside them."""
    contributions = pa.array(explained.contributions.squeeze(1).tolist(), pa.list_(pa.float32()))
    bias = pa.array(explained.bias.squeeze(1).tolist(), pa.float32())
    return requests.append_column(EXPECTED_CONTRIBUTIONS, contributions).append_column(
        EXPECTED_BIAS, bias
    )
