"""A trained retriever -> a generator of a bundle, with the training stack's own answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from feature_store.columns import HISTORY
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.data.examples import Examples
from recsys.embeddings.options import QuantisationConfig
from recsys.export.asked import asked_vectors
from recsys.export.golden import GOLDEN_K, golden_requests, with_answers, write_fallback
from recsys.export.item_reader import read_alone, verify_item_reader, write_item_reader
from recsys.export.programs import export_program, least_bytes, on_plain_tables, quantise_tables
from recsys.export.requests import features_of
from recsys.export.sample_quality import SAMPLE_K, sample_recall
from recsys.export.space import space_of
from recsys.export.words import write_words
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import VectorRetriever
from recsys.serving.bundle import Bundle
from recsys.serving.finder import ITEM_IDS
from recsys.serving.generator import ITEMS, OLD_SPACE, PROGRAM, QUERIES
from recsys.serving.golden import GOLDEN
from recsys.serving.index.base import Queries
from recsys.serving.index.kinds import build_index, recall_against_exact
from recsys.serving.index.options import ApproximateConfig, IndexConfig, PromiseConfig
from recsys.serving.index.promise import KEPT, keep_promise
from recsys.serving.manifest import About, GeneratorRecord, IndexRecord, LineageRecord
from recsys.serving.options import FallbackConfig
from recsys.serving.recommender import Recommender


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
    same model on such tables, once its recall has passed for close enough. The `space` is that of
    its weights where none is given; `old_space` says where item rows [n] stand in the one before.
    """

    retriever: VectorRetriever
    examples: Examples
    candidates: Tensor
    index: IndexConfig | PromiseConfig
    golden: int
    about: About
    quantisation: QuantisationConfig = QuantisationConfig()  # noqa: RUF009 (frozen)
    space: str | None = None
    lineage: LineageRecord | None = None
    old_space: Callable[[Tensor], Tensor] | None = None
    fallback: FallbackConfig = FallbackConfig()  # noqa: RUF009 (frozen)

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
        if self.old_space is not None:
            np.save(folder / OLD_SPACE, self.old_space(self.candidates).numpy())
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
        batch, requests = golden_requests(
            examples, retriever.inputs, self.golden, needs_history=retriever.needs_history
        )
        answers = (retriever if quantised is None else small).retrieve(
            batch, min(GOLDEN_K, len(self.candidates)), Pairs.of_padded(batch.padded(HISTORY))
        )
        golden = with_answers(requests, answers, examples)
        fallback = None
        if retriever.needs_history:
            fallback, golden = write_fallback(
                folder, golden, examples, self.candidates, self.fallback
            )
        write_parquet(golden, folder / GOLDEN)
        export_program(tower, retriever, batch, folder / PROGRAM)
        reader = retriever.item_reader()
        if reader is not None:
            write_item_reader(reader, folder)
        words = write_words(retriever, examples, folder)

        asked, space = retriever.embed_users(batch), self.space or space_of(retriever)
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
            lineage=self.lineage,
            texts=None if reader is None else read_alone(reader.text),
            words=words,
        )

    def verify(self, bundle: Bundle, name: str) -> None:
        """Ask the written part its golden requests. Raises DataError where an answer differs."""
        Recommender(bundle, name).verify()
        if self.retriever.item_reader() is not None:
            verify_item_reader(bundle, name, self.examples, self.candidates[: self.golden])

    def _write_index(self, folder: Path, items: Tensor, queries: Queries) -> IndexRecord:
        if isinstance(self.index, PromiseConfig):
            return self._keep_promise(folder, items, queries, self.index)
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

    def _keep_promise(
        self, folder: Path, items: Tensor, queries: Queries, promise: PromiseConfig
    ) -> IndexRecord:
        asked = asked_vectors(self.retriever, self.examples, promise.queries)
        if not len(asked):  # nobody is judged
            asked = items[: promise.queries]
        nested = self.about.config.get("matryoshka", ())
        index, record = keep_promise(items, queries.space, promise, asked, nested)
        index.save(folder)
        np.save(folder / QUERIES, asked[:KEPT].numpy())
        recall = recall_against_exact(index, queries)
        return IndexRecord(config=record.chosen.config, recall_at_100=recall, promise=record)
