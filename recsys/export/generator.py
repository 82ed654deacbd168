"""A trained retriever -> a generator of a bundle, with the training stack's own answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES, HISTORY
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.embeddings.options import QuantisationConfig
from recsys.export.fallback import popular_lately
from recsys.export.programs import export_program, least_bytes, on_plain_tables, quantise_tables
from recsys.export.requests import features_of, raw_requests
from recsys.export.sample_quality import SAMPLE_K, sample_recall
from recsys.export.space import space_of
from recsys.inputs import History
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Candidates, VectorRetriever
from recsys.serving.bundle import Bundle
from recsys.serving.fallback import FALLBACK, ITEM, SCORE
from recsys.serving.generator import ITEM_IDS, ITEMS, PROGRAM
from recsys.serving.golden import GOLDEN
from recsys.serving.index.base import Queries
from recsys.serving.index.kinds import build_index, recall_against_exact
from recsys.serving.index.options import ApproximateConfig, IndexConfig
from recsys.serving.manifest import About, FallbackRecord, GeneratorRecord, IndexRecord
from recsys.serving.recommender import Recommender

_GOLDEN_K = 100  # places of a golden answer


class UserTower(nn.Module):
    """A retriever's user side alone, on plain tables: what torch.export sees."""

    def __init__(self, retriever: VectorRetriever) -> None:
        super().__init__()
        self.retriever = on_plain_tables(retriever)

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Vectors [B, K, D] and weights [B, K]."""
        queries = self.retriever.encode(inputs)
        return queries.vectors, queries.weights


@dataclass(frozen=True)
class GeneratorExport:
    """Writes a retriever and the items [n] that it may find, `candidates`, as a part of a bundle.

    The `golden` answers are the training stack's own; with quantised tables they are those of the
    same model on such tables, once its recall has passed for close enough.
    """

    retriever: VectorRetriever
    examples: Examples
    candidates: Tensor
    index: IndexConfig
    golden: int
    about: About
    quantisation: QuantisationConfig = QuantisationConfig()  # noqa: RUF009 (frozen)

    noun: ClassVar[str] = GeneratorRecord.noun

    @property
    def bytes(self) -> int:
        """Of its weights, at least."""
        return least_bytes(self.retriever, self.quantisation)

    @property
    def features(self) -> tuple[str, ...]:
        """The items, and what the program reads."""
        return features_of(self.retriever.inputs, self.examples.schema.item)

    def write(self, folder: Path) -> GeneratorRecord:
        """Write the part's files.

        Raises:
            DataError: the index misses its recall target, or no request can be answered.
            ConfigError: `quantisation` names a table that is not there.
        """
        retriever, examples = self.retriever.eval(), self.examples
        ids = examples.vocabulary(examples.schema.item).decode(self.candidates.numpy())
        Vocabulary(ids).save(folder / ITEM_IDS)
        items = retriever.item_matrix(self.candidates)
        items = items.float() if items.is_floating_point() else items
        np.save(folder / ITEMS, items.numpy())
        tower = UserTower(retriever)
        small: VectorRetriever = tower.retriever
        retriever.prepare(self.candidates)
        small.prepare_as(retriever)  # the index's own vectors, of float32 tables
        quantised = quantise_tables(
            small,
            self.quantisation,
            lambda: sample_recall(small, examples, self.quantisation.sample),
            f"Recall@{SAMPLE_K}",
        )
        batch, requests = self._golden_requests()
        answers = (retriever if quantised is None else small).retrieve(
            batch, min(_GOLDEN_K, len(self.candidates)), Pairs.of_padded(batch.padded(HISTORY))
        )
        golden = _with_answers(requests, answers, examples)
        fallback = None
        if retriever.needs_history:
            fallback, unknown = self._write_fallback(folder, golden.schema)
            golden = pa.concat_tables([golden, unknown])
        write_parquet(golden, folder / GOLDEN)
        export_program(tower, retriever, batch, folder / PROGRAM)

        asked, space = retriever.embed_users(batch), space_of(retriever)
        queries = Queries(asked.vectors.detach(), asked.weights, space)
        layout = getattr(getattr(retriever, "embeddings", None), "layout", None)
        return GeneratorRecord(
            about=self.about,
            protocol=examples.summary.protocol,
            protocol_fingerprint=examples.summary.fingerprint,
            train_roles=examples.summary.train_roles,
            inputs=retriever.inputs,
            embeddings=layout.to_dict() if layout else None,
            quantisation=quantised,
            needs_history=retriever.needs_history,
            space=space,
            width=queries.vectors.shape[2],
            candidates=len(self.candidates),
            items="vectors" if items.dim() == 2 else "rows",
            merge=retriever.merge.name,
            index=self._write_index(folder, items, queries),
            fallback=fallback,
        )

    def verify(self, bundle: Bundle, name: str) -> None:
        """Ask the written part its golden requests. Raises DataError where an answer differs."""
        Recommender(bundle, name).verify()

    def _write_index(self, folder: Path, items: Tensor, queries: Queries) -> IndexRecord:
        index = build_index(items, queries.space, self.index)
        index.save(folder)
        recall = recall_against_exact(index, queries)
        if isinstance(self.index, ApproximateConfig) and recall < self.index.recall_target:
            raise DataError(
                f"the index {self.index} finds {recall:.3f} of the exact top 100, less than "
                f"export.index.recall_target = {self.index.recall_target}: choose "
                f"{self.index.way_out}, or kind = 'exact'"
            )
        return IndexRecord(config=self.index, recall_at_100=recall)

    def _write_fallback(self, folder: Path, golden: pa.Schema) -> tuple[FallbackRecord, pa.Table]:
        """Write `fallback.parquet`; returns its record, and a golden request without a history."""
        record, popular = popular_lately(self.examples, self.candidates)
        items, scores = (
            column.flatten()
            for column in _as_lists(popular, self.examples.vocabulary(self.examples.schema.item))
        )
        write_parquet(pa.table({ITEM: items, SCORE: scores}), folder / FALLBACK)
        first = Candidates(*(column[:, :_GOLDEN_K] for column in popular))
        nothing = pa.table({field.name: pa.nulls(1, field.type) for field in golden})
        asked = nothing.drop_columns([EXPECTED_ITEMS, EXPECTED_SCORES])
        return record, _with_answers(asked, first, self.examples).cast(golden)

    def _golden_requests(self) -> tuple[Batch, pa.Table]:
        """The first test requests that can be answered, as a batch and with raw ids."""
        table = read_parquet(self.examples.folder / "test.parquet")
        if self.retriever.needs_history:
            lengths = np.diff(table.column(HISTORY).combine_chunks().offsets)
            table = table.take(pa.array(np.flatnonzero(lengths)))
            if not table.num_rows:
                raise DataError("no test request has a history: nothing to verify the bundle with")
        chosen = table.slice(0, self.golden).combine_chunks()
        wanted = (History(self.examples.schema.item), *self.retriever.inputs)
        names = list(dict.fromkeys(asked.name for asked in wanted))
        requests = raw_requests(self.examples, chosen, wanted)
        return Block.of(chosen.select(names)).to_batch(), requests


def _with_answers(requests: pa.Table, answers: Candidates, examples: Examples) -> pa.Table:
    items, scores = _as_lists(answers, examples.vocabulary(examples.schema.item))
    return requests.append_column(EXPECTED_ITEMS, items).append_column(EXPECTED_SCORES, scores)


def _as_lists(answers: Candidates, vocabulary: Vocabulary) -> tuple[pa.ListArray, pa.ListArray]:
    """Raw ids and scores of answers [B, k], without what fills up short lists."""
    items, scores = [], []
    for ids, values in zip(answers.ids, answers.scores, strict=True):
        kept = ids != 0
        items.append(vocabulary.decode(ids[kept].numpy()).to_pylist())
        scores.append(values[kept].tolist())
    return (
        pa.array(items, pa.list_(vocabulary.values.type)),
        pa.array(scores, pa.list_(pa.float32())),
    )
