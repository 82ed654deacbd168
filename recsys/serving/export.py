"""A trained retriever -> a bundle, with the training stack's own answers as golden requests."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import uuid
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import write_parquet
from feature_store.examples import HISTORY
from feature_store.vocabulary import Vocabulary
from recsys.batch import Batch
from recsys.embeddings.tables import Embeddings
from recsys.examples import Examples
from recsys.inputs import Input
from recsys.membership import Pairs
from recsys.retrievers.base import Candidates, VectorRetriever
from recsys.rows import Rows
from recsys.serving.bundle import EXPECTED_ITEMS, EXPECTED_SCORES, FORMAT, MANIFEST, digest
from recsys.serving.index import IndexConfig, build_index, recall_against_exact
from recsys.serving.recommender import Recommender


class UserTower(nn.Module):
    """A retriever's user side alone, on plain tables: what torch.export sees."""

    def __init__(self, retriever: VectorRetriever) -> None:
        super().__init__()
        self.retriever = copy.deepcopy(retriever).eval()
        self.retriever._prepared = None
        for name, child in self.retriever.named_children():
            if isinstance(child, Embeddings):
                setattr(self.retriever, name, child.plain())

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
) -> Recommender:
    """Write a bundle, verify it by opening it, and only then put it in place.

    `about` goes into the manifest: retriever's name, config, figures, fingerprints.

    Raises:
        DataError: the exported tower answers otherwise than the retriever, or the index misses
            its recall target.
    """
    retriever.eval()
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    (aside / "vocabulary").mkdir(parents=True)
    try:
        schema = examples.schema
        schema.save(aside / "schema.json")
        names = [schema.item] + [one.name for one in retriever.inputs if one.kind in ("id", "bag")]
        for name in names:
            examples.vocabulary(name).save(
                aside / "vocabulary" / f"{schema[name].table_name}.arrow"
            )
        ids = examples.vocabulary(schema.item).decode(candidates.numpy())
        Vocabulary(ids).save(aside / "item_ids.arrow")
        items = retriever.item_matrix(candidates)
        items = items.float() if items.is_floating_point() else items
        np.save(aside / "items.npy", items.numpy())
        if catalogue.path("item").exists():
            shutil.copyfile(catalogue.path("item"), aside / "catalogue.parquet")
        shutil.copyfile(examples.folder / "serving.parquet", aside / "users.parquet")
        batch, requests = _golden_requests(examples, retriever, golden)
        _export_tower(retriever, batch, aside / "user_tower.pt2")
        retriever.prepare(candidates)
        answers = retriever.retrieve(
            batch, min(100, len(candidates)), Pairs.of_padded(batch.padded(HISTORY))
        )
        write_parquet(_with_answers(requests, answers, examples), aside / "golden.parquet")

        space = uuid.uuid5(uuid.NAMESPACE_OID, digest(aside / "items.npy")).hex[:16]
        built = build_index(items, space, index)
        built.save(aside)
        users = retriever.embed_users(batch).vectors.detach()
        recall = recall_against_exact(built, users)
        if recall < index.recall_target:
            raise DataError(
                f"the index {index.factory} finds {recall:.3f} of the exact top 100, less than "
                f"export.index.recall_target = {index.recall_target}: choose another factory, "
                "or kind = 'exact'"
            )
        layout = getattr(getattr(retriever, "embeddings", None), "layout", None)
        manifest = {
            "format": FORMAT,
            "space": space,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
            "needs_history": retriever.needs_history,
            "inputs": [asdict(one) for one in retriever.inputs],
            "vocabularies": names,
            "embeddings": layout.to_dict() if layout else None,
            "candidates": len(candidates),
            "items": "vectors" if items.dim() == 2 else "rows",
            "width": users.shape[2],
            "index": {"config": index.model_dump(), "recall_at_100": recall},
            "versions": {name: version(name) for name in ("recsys", "torch")},
            "files": {
                str(path.relative_to(aside)): digest(path)
                for path in sorted(aside.rglob("*"))
                if path.is_file()
            },
        }
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        Recommender.open(aside)  # replays the golden requests
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Recommender.open(folder, verify=False)


def _golden_requests(
    examples: Examples, retriever: VectorRetriever, count: int
) -> tuple[Batch, pa.Table]:
    """The first test requests that can be answered, as a batch and with raw ids."""
    schema = examples.schema
    table = pq.read_table(examples.folder / "test.parquet", partitioning=None)
    if retriever.needs_history:
        lengths = np.diff(table.column(HISTORY).combine_chunks().offsets)
        table = table.take(pa.array(np.flatnonzero(lengths)))
        if not table.num_rows:
            raise DataError("no test request has a history: nothing to verify the bundle with")
    chosen = table.slice(0, count).combine_chunks()
    raw: dict[str, pa.Array] = {}
    for one in (*retriever.inputs, Input(HISTORY, "sequence")):
        column = chosen.column(one.name).combine_chunks()
        if one.kind == "dense":
            raw[one.name] = column
            continue
        vocabulary = examples.vocabulary(schema.item if one.name == HISTORY else one.name)
        if one.kind == "id":
            raw[one.name] = vocabulary.decode(column.to_numpy())
        else:
            raw[one.name] = pa.ListArray.from_arrays(
                column.offsets, vocabulary.decode(column.values.to_numpy())
            )
    columns = list(dict.fromkeys([HISTORY, *(one.name for one in retriever.inputs)]))
    bags = tuple(one.name for one in retriever.inputs if one.kind == "bag")
    return Rows.of(chosen.select(columns)).to_batch(bags), pa.table(raw)


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


def _export_tower(retriever: VectorRetriever, batch: Batch, path: Path) -> None:
    """Export with a dynamic number of requests and, for lists, a dynamic length."""
    found = retriever.inputs_of(batch)
    inputs = {
        one.name: _at_least_two(
            found[one.name] if one.kind == "dense" else found[one.name].long(),
            columns=one.length != 1,
        )
        for one in retriever.inputs  # rows are int32 in examples, and int64 in requests
    }
    rows = torch.export.Dim("requests", min=1, max=1 << 20)
    shapes: dict[str, dict[int, Any]] = {}
    for one in retriever.inputs:
        shapes[one.name] = {0: rows}
        if one.kind in ("sequence", "bag") and one.length != 1:
            shapes[one.name][1] = torch.export.Dim(f"{one.name}_length", min=1, max=one.length)
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(UserTower(retriever), (inputs,), dynamic_shapes=(shapes,))
        torch.export.save(program, str(path))


def _at_least_two(part: Tensor, *, columns: bool) -> Tensor:
    """Two rows (and `columns`) at least: torch.export would take a 1 for a constant."""
    while len(part) < 2:
        part = torch.cat([part, part])
    if columns and part.dim() == 2 and part.shape[1] < 2:
        part = torch.cat([part, part], dim=1)
    return part
