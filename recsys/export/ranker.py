"""A trained ranker -> a bundle, with the training stack's own logits as golden requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from feature_store.durable import write_parquet
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.embeddings.options import QuantisationConfig
from recsys.export.programs import export_program, on_plain_tables, quantise_tables
from recsys.export.retriever import raw_requests, save_vocabularies
from recsys.export.sample_quality import sample_auc
from recsys.inputs import Id, to_json
from recsys.rankers.base import Ranker
from recsys.serving.files import new_bundle, write_manifest
from recsys.serving.scorer import Scorer, expected_of


class _Program(nn.Module):
    """What torch.export sees of a ranker."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M]."""
        return self.ranker.score(self.ranker.encode(inputs), items)


@torch.no_grad()
def write_ranker_bundle(
    folder: Path,
    ranker: Ranker,
    examples: Examples,
    *,
    golden: int,
    about: dict[str, Any],
    quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008 (frozen)
) -> Scorer:
    """Write a bundle, verify it by opening it, and only then put it in place.

    `about` and the golden requests are as of `recsys.export.retriever.write_bundle`.

    Raises:
        DataError: the exported program answers otherwise than the ranker.
        ConfigError: `quantisation` names a table that is not there.
    """
    ranker.eval()
    schema = examples.schema
    with new_bundle(folder) as aside:
        names = save_vocabularies(aside, examples, ranker.inputs, ranker.item)
        users = pq.read_table(examples.folder / "serving.parquet", partitioning=None)
        known = [f.name for f in schema.of_side("user") if f.name in users.column_names]
        write_parquet(users.select(known), aside / "users.parquet")
        small: Ranker = on_plain_tables(ranker)
        quantised = quantise_tables(
            small, quantisation, lambda: sample_auc(small, examples, quantisation.sample), "AUC"
        )
        chosen = pq.read_table(examples.folder / "test.parquet", partitioning=None)
        chosen = chosen.slice(0, golden).combine_chunks()
        read = (*ranker.inputs, Id(ranker.item))
        batch = Block.of(chosen.select([asked.name for asked in read])).to_batch()
        requests = raw_requests(examples, chosen, read)
        logits = (ranker if quantised is None else small).predict(batch)
        for task, expected in zip(ranker.tasks, logits.T.numpy(), strict=True):
            requests = requests.append_column(expected_of(task), pa.array(expected, pa.float32()))
        write_parquet(requests, aside / "golden.parquet")
        items = batch.id(ranker.item).unsqueeze(1)
        export_program(_Program(small), ranker, batch, aside / "ranker.pt2", items)
        layout = getattr(getattr(ranker, "embeddings", None), "layout", None)
        manifest = {
            **about,
            "inputs": [to_json(asked) for asked in ranker.inputs],
            "vocabularies": names,
            "tasks": list(ranker.tasks),
            "embeddings": layout.to_dict() if layout else None,
            "quantisation": quantised,
        }
        write_manifest(aside, "ranker", manifest)
        Scorer.open(aside)  # replays the golden requests
    return Scorer.open(folder, verify=False)
