"""Scorer: raw requests in, probabilities out, from a ranker's bundle alone.

manifest.json       what is in here, checksums, versions, figures
schema.json         the log's schema
vocabulary/*.arrow  raw ids of every input
ranker.pt2          torch.export: request tensors, item rows [B, M] -> logits [B, M, tasks]
users.parquet       the features of known users
golden.parquet      requests with the training stack's logits, replayed on loading
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from feature_store.columns import LABEL
from feature_store.errors import DataError
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Id, Input, from_json
from recsys.serving.files import read_manifest
from recsys.serving.requests import table_of

TOLERANCE = 1e-3  # of logits, between the eager model and the exported one


def expected_of(task: str) -> str:
    """The column of golden requests with the training stack's logits of a task."""
    return f"expected_logit.{task}"  # no feature has a dot in its name


@dataclass
class Scorer:
    """An opened bundle of a ranker; `open` verifies it."""

    folder: Path
    manifest: dict[str, Any]
    schema: Schema
    inputs: tuple[Input, ...]
    vocabularies: dict[str, Vocabulary]
    program: torch.nn.Module
    users: pa.Table

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = True) -> Scorer:
        """Open a bundle; replays its golden requests unless `verify` is off.

        Raises DataError when files were altered or an answer differs.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, "ranker")
        schema = Schema.load(folder / "schema.json")
        found = cls(
            folder=folder,
            manifest=manifest,
            schema=schema,
            inputs=tuple(from_json(asked) for asked in manifest["inputs"]),
            vocabularies={
                name: Vocabulary.load(folder / "vocabulary" / f"{schema[name].table_name}.arrow")
                for name in manifest["vocabularies"]
            },
            program=torch.export.load(str(folder / "ranker.pt2")).module(),
            users=pq.read_table(folder / "users.parquet", partitioning=None),
        )
        if verify:
            found._replay()
        return found

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the ranker has logits of."""
        return tuple(self.manifest["tasks"])

    def score(self, requests: pd.DataFrame | pa.Table, task: str = LABEL) -> pd.DataFrame:
        """The requests with a column `probability`, that of a task, in their order.

        A request is a row with the item's id and what else the model reads; features of known
        users may be absent where their ids are there, others are then unknown. Raises DataError
        for requests without items, for columns of the wrong type and for a task that the ranker
        was not trained on.
        """
        if task not in self.tasks:
            raise DataError(f"{self.folder} has no task {task!r}; it has: {', '.join(self.tasks)}")
        table = table_of(requests)
        if not table.num_rows:
            raise DataError("no requests")
        if self.schema.item not in table.column_names:
            raise DataError(
                f"requests need a column {self.schema.item!r} of item ids; they have: "
                f"{', '.join(table.column_names)}"
            )
        whole = self._with_users(table)
        logits = self.logits(whole, self._items(whole))[:, 0, self.tasks.index(task)]
        return table.to_pandas().assign(probability=torch.sigmoid(logits).numpy())

    def logits(self, requests: pa.Table, items: Tensor) -> Tensor:
        """Logits [B, M, tasks] of item rows [B, M] for requests that bring all they know."""
        inputs = {
            asked.name: asked.from_requests(requests, self.vocabularies) for asked in self.inputs
        }
        with torch.no_grad():
            logits: Tensor = self.program(inputs, items)
        return logits

    def _items(self, requests: pa.Table) -> Tensor:
        """The rows [B, 1] of the requests' items."""
        return Id(self.schema.item).from_requests(requests, self.vocabularies).unsqueeze(1)

    def _with_users(self, requests: pa.Table) -> pa.Table:
        """Add features of known users that the requests do not bring."""
        user = self.schema.user
        missing = [
            asked.name
            for asked in self.inputs
            if asked.name not in requests.column_names and asked.name in self.users.column_names
        ]
        if not missing or user not in requests.column_names:
            return requests
        known = self.users.column(user).combine_chunks()
        try:
            wanted = requests.column(user).combine_chunks().cast(known.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"column {user!r} of the requests cannot be read: {error}") from None
        places = pc.index_in(wanted, value_set=known)
        for name in missing:
            requests = requests.append_column(name, self.users.column(name).take(places))
        return requests

    def _replay(self) -> None:
        golden = pq.read_table(self.folder / "golden.parquet", partitioning=None)
        logits = self.logits(golden, self._items(golden)).squeeze(1)
        for task, answers in zip(self.tasks, logits.T, strict=True):
            expected = torch.tensor(golden.column(expected_of(task)).to_pylist())
            slack = TOLERANCE * expected.abs().clamp(min=1)
            wrong = (answers - expected).abs() > slack
            if wrong.any():
                row = int(wrong.int().argmax())
                raise DataError(
                    f"{self.folder}: golden request {row} has the logit {answers[row]:.4f} of "
                    f"{task}, the training stack's was {expected[row]:.4f}: do not serve it, "
                    "export again"
                )
