"""A trained retriever -> a bundle, with the training stack's own answers as golden requests."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, nn

from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.embeddings.options import QuantisationConfig
from recsys.export.programs import export_program, on_plain_tables, quantise_tables
from recsys.export.sample_quality import SAMPLE_K, sample_recall
from recsys.inputs import History, Input, to_json
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Candidates, VectorRetriever
from recsys.serving.bundle import EXPECTED_ITEMS, EXPECTED_SCORES
from recsys.serving.files import digest, new_bundle, write_manifest
from recsys.serving.index.base import Queries
from recsys.serving.index.kinds import build_index, recall_against_exact
from recsys.serving.index.options import ApproximateConfig, IndexConfig
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


def write_bundle(
    folder: Path,
    retriever: VectorRetriever,
    examples: Examples,
    catalogue: Catalogue,
    candidates: Tensor,
    *,
    index: IndexConfig,
    golden: int,
    about: dict[str, Any],
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008 (frozen)
) -> Recommender:
    """Write a bundle, verify it by opening it, and only then put it in place.

    `about` goes into the manifest: retriever's name, config, figures, fingerprints. The golden
    answers are the training stack's own; with quantised tables they are those of the same model
    on such tables, once its recall has passed for close enough.

    Raises:
        DataError: the exported tower answers otherwise than the retriever, or the index misses
            its recall target.
        ConfigError: `quantisation` names a table that is not there.
    """
    retriever.eval()
    with new_bundle(folder) as aside:
        schema = examples.schema
        names = save_vocabularies(aside, examples, retriever.inputs, schema.item)
        ids = examples.vocabulary(schema.item).decode(candidates.numpy())
        Vocabulary(ids).save(aside / "item_ids.arrow")
        items = retriever.item_matrix(candidates)
        items = items.float() if items.is_floating_point() else items
        np.save(aside / "items.npy", items.numpy())
        if catalogue.path("item").exists():
            shutil.copyfile(catalogue.path("item"), aside / "catalogue.parquet")
        shutil.copyfile(examples.folder / "serving.parquet", aside / "users.parquet")
        retriever.prepare(candidates)
        tower = UserTower(retriever)
        small: VectorRetriever = tower.retriever
        small._prepared = retriever._prepared  # the index's own vectors, of float32 tables
        sample = quantisation.sample
        quantised = quantise_tables(
            small,
            quantisation,
            lambda: sample_recall(small, examples, sample),
            f"Recall@{SAMPLE_K}",
        )
        answering = retriever if quantised is None else small
        batch, requests = _golden_requests(examples, retriever, golden)
        answers = answering.retrieve(
            batch, min(100, len(candidates)), Pairs.of_padded(batch.padded(HISTORY))
        )
        write_parquet(_with_answers(requests, answers, examples), aside / "golden.parquet")
        small._prepared = None
        export_program(tower, retriever, batch, aside / "user_tower.pt2")

        space = uuid.uuid5(uuid.NAMESPACE_OID, digest(aside / "items.npy")).hex[:16]
        built = build_index(items, space, index)
        built.save(aside)
        asked = retriever.embed_users(batch)
        users = asked.vectors.detach()
        recall = recall_against_exact(built, Queries(users, asked.weights, space))
        if isinstance(index, ApproximateConfig) and recall < index.recall_target:
            raise DataError(
                f"the index {index} finds {recall:.3f} of the exact top 100, less than "
                f"export.index.recall_target = {index.recall_target}: choose {index.way_out}, "
                "or kind = 'exact'"
            )
        layout = getattr(getattr(retriever, "embeddings", None), "layout", None)
        manifest = {
            "space": space,
            "train_roles": list(examples.summary.train_roles),
            **about,
            "needs_history": retriever.needs_history,
            "inputs": [to_json(asked) for asked in retriever.inputs],
            "vocabularies": names,
            "embeddings": layout.to_dict() if layout else None,
            "quantisation": quantised,
            "candidates": len(candidates),
            "items": "vectors" if items.dim() == 2 else "rows",
            "width": users.shape[2],
            "merge": retriever.merge,
            "index": {"config": index.model_dump(), "recall_at_100": recall},
        }
        write_manifest(aside, "retriever", manifest)
        Recommender.open(aside)  # replays the golden requests
    return Recommender.open(folder, verify=False)


def save_vocabularies(
    folder: Path, examples: Examples, inputs: tuple[Input, ...], *others: str
) -> list[str]:
    """Write the schema and the raw ids of what a program reads; returns the features' names."""
    schema = examples.schema
    schema.save(folder / "schema.json")
    read = [asked.feature for asked in inputs if asked.feature is not None]
    names = list(dict.fromkeys([*others, *read]))
    for name in names:
        path = folder / "vocabulary" / f"{schema[name].table_name}.arrow"
        examples.vocabulary(name).save(path)
    return names


def _golden_requests(
    examples: Examples, retriever: VectorRetriever, count: int
) -> tuple[Batch, pa.Table]:
    """The first test requests that can be answered, as a batch and with raw ids."""
    table = pq.read_table(examples.folder / "test.parquet", partitioning=None)
    if retriever.needs_history:
        lengths = np.diff(table.column(HISTORY).combine_chunks().offsets)
        table = table.take(pa.array(np.flatnonzero(lengths)))
        if not table.num_rows:
            raise DataError("no test request has a history: nothing to verify the bundle with")
    chosen = table.slice(0, count).combine_chunks()
    wanted = (History(examples.schema.item), *retriever.inputs)
    names = list(dict.fromkeys(asked.name for asked in wanted))
    return Block.of(chosen.select(names)).to_batch(), raw_requests(examples, chosen, wanted)


def raw_requests(examples: Examples, rows: pa.Table, inputs: tuple[Input, ...]) -> pa.Table:
    """Encoded requests as someone outside would make them: raw ids and values."""
    features = {asked.feature for asked in inputs if asked.feature is not None}
    vocabularies = {feature: examples.vocabulary(feature) for feature in features}
    return pa.table({asked.name: asked.to_raw(rows, vocabularies) for asked in inputs})


def _with_answers(requests: pa.Table, answers: Candidates, examples: Examples) -> pa.Table:
    vocabulary = examples.vocabulary(examples.schema.item)
    items, scores = [], []
    for ids, values in zip(answers.ids, answers.scores, strict=True):
        kept = ids != 0
        items.append(vocabulary.decode(ids[kept].numpy()).to_pylist())
        scores.append(values[kept].tolist())
    kind = pa.list_(vocabulary.values.type)
    return requests.append_column(EXPECTED_ITEMS, pa.array(items, kind)).append_column(
        EXPECTED_SCORES, pa.array(scores, pa.list_(pa.float32()))
    )
