"""Scorer: raw requests in, probabilities out, from a ranker's bundle alone.

manifest.json       what is in here, checksums, versions, figures
schema.json         the log's schema
vocabulary/*.arrow  raw ids of every input
ranker.pt2          torch.export: request tensors -> logits
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

from feature_store.errors import DataError
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Input
from recsys.serving.files import read_manifest
from recsys.serving.requests import table_of, tensor_of

EXPECTED = "expected_logit"
TOLERANCE = 1e-3  # of logits, between the eager model and the exported one


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
            inputs=tuple(Input(**one) for one in manifest["inputs"]),
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

    def score(self, requests: pd.DataFrame | pa.Table) -> pd.DataFrame:
        """The requests with a column `probability`, in their order.

        A request is a row with the item's id and what else the model reads; features of known
        users may be absent where their ids are there, others are then unknown. Raises DataError
        for requests without items and for columns of the wrong type.
        """
        table = table_of(requests)
        if not table.num_rows:
            raise DataError("no requests")
        if self.schema.item not in table.column_names:
            raise DataError(
                f"requests need a column {self.schema.item!r} of item ids; they have: "
                f"{', '.join(table.column_names)}"
            )
        probability = torch.sigmoid(self.logits(self._with_users(table)))
        return table.to_pandas().assign(probability=probability.numpy())

    def logits(self, requests: pa.Table) -> Tensor:
        """Logits [B] of requests that bring all they know."""
        inputs = {
            one.name: tensor_of(one, requests, self.vocabularies.get(one.name))
            for one in self.inputs
        }
        with torch.no_grad():
            return self.program(inputs)[:, 0]

    def _with_users(self, requests: pa.Table) -> pa.Table:
        """Add features of known users that the requests do not bring."""
        user = self.schema.user
        missing = [
            one.name
            for one in self.inputs
            if one.name not in requests.column_names and one.name in self.users.column_names
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
        expected = torch.tensor(golden.column(EXPECTED).to_pylist())
        found = self.logits(golden.drop_columns([EXPECTED]))
        slack = TOLERANCE * expected.abs().clamp(min=1)
        wrong = (found - expected).abs() > slack
        if wrong.any():
            row = int(wrong.int().argmax())
            raise DataError(
                f"{self.folder}: golden request {row} has the logit {found[row]:.4f}, the training "
                f"stack's was {expected[row]:.4f}: do not serve it, export again"
            )
