"""How long does an epoch of FuxiCTR's DIN or DCN-V2 take on given rows?

Runs inside `.venv-fuxictr` (see `make peers`) on a folder that `benchmarks.ranker_training` wrote.
The networks are made of FuxiCTR's layers as its model zoo makes them, and `fit` is its own: only a
stopwatch is added, and the zoo's packages that are not on PyPI are done without. Every line of
input asks for one more epoch, whose wall-clock seconds are printed on a line.

    yes | head -3 | .venv-fuxictr/bin/python benchmarks/peers/fuxictr_ranker.py FOLDER din
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, Dice, DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

EPOCHS = 1000  # more than anybody asks for
ITEM, HISTORY = ("item_id", "category"), ("item_id_history", "category_history")


class Timed(BaseModel):
    """Trains an epoch when it is asked to, and says how long that took."""

    def __init__(self, features: FeatureMap) -> None:
        super().__init__(features, verbose=0, model_root="", metrics=["AUC"], eval_steps=1 << 60)

    def finish(self, rate: float) -> None:
        """What its models do at the end of their construction."""
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()
        self.model_to_device()

    def train_epoch(self, data_generator: Any) -> None:
        if not sys.stdin.readline():
            sys.exit()
        started = time.perf_counter()
        super().train_epoch(data_generator)
        print(time.perf_counter() - started, flush=True)


class DIN(Timed):
    """As `model_zoo/DIN` without regularisers."""

    def __init__(self, features: FeatureMap, shape: dict[str, Any]) -> None:
        super().__init__(features)
        width, hidden = shape["width"], shape["hidden"]
        self.vectors = FeatureEmbeddingDict(features, width)
        self.attention = DIN_Attention(
            len(ITEM) * width, attention_units=shape["attention_hidden"], hidden_activations="Dice"
        )
        self.deep = MLP_Block(
            features.sum_emb_out_dim(),
            hidden_units=hidden,
            hidden_activations=[Dice(units) for units in hidden],
            output_dim=1,
            output_activation=self.output_activation,
        )
        self.finish(shape["learning_rate"])

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        given = self.get_inputs(batch)
        vectors = self.vectors(given)
        target, events = (
            torch.cat([vectors.pop(name) for name in of], dim=-1) for of in (ITEM, HISTORY)
        )
        interest = self.attention(target, events, given[HISTORY[0]].long() != 0)
        everything = torch.cat([*vectors.values(), target, interest], dim=-1)
        return {"y_pred": self.deep(everything)}


class DCN(Timed):
    """As `model_zoo/DCNv2`, stacked, without regularisers."""

    def __init__(self, features: FeatureMap, shape: dict[str, Any]) -> None:
        super().__init__(features)
        width, hidden = features.sum_emb_out_dim(), shape["hidden"]
        self.vectors = FeatureEmbeddingDict(features, shape["width"])
        self.cross = CrossNetV2(width, shape["cross_layers"])
        self.deep = MLP_Block(width, hidden_units=hidden, hidden_activations="ReLU")
        self.last = nn.Linear(hidden[-1], 1)
        self.finish(shape["learning_rate"])

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        vectors = self.vectors(self.get_inputs(batch))
        everything = self.vectors.dict2tensor(vectors, flatten_emb=True)
        return {"y_pred": self.output_activation(self.last(self.deep(self.cross(everything))))}


def features_of(rows: dict[str, int], length: int, width: int, *, histories: bool) -> FeatureMap:
    """Ids of so many rows of tables; a history shares the table of what it holds."""
    found = FeatureMap("rows", "")
    specs = {name: {"type": "categorical", "vocab_size": size} for name, size in rows.items()}
    if histories:
        for name, of in zip(HISTORY, ITEM, strict=True):
            shared = {"type": "sequence", "max_len": length, "share_embedding": of}
            specs[name] = {**specs[of], **shared}
    found.features = OrderedDict((name, {**spec, "padding_idx": 0}) for name, spec in specs.items())
    found.labels = ["label"]
    found.default_emb_dim = width
    found.set_column_index()
    return found


def main() -> None:
    """Train as long as somebody asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of MODEL.json and MODEL.npz")
    parser.add_argument("model", choices=["din", "dcn"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0, help="processes that collate batches")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = json.loads((args.folder / f"{args.model}.json").read_text())
    din = args.model == "din"
    features = features_of(shape["rows"], shape["max_length"], shape["width"], histories=din)
    model = (DIN if din else DCN)(features, shape)
    loader, _ = RankDataLoader(
        features,
        stage="train",
        train_data=str(args.folder / f"{args.model}.npz"),
        batch_size=shape["batch_size"],
        shuffle=True,
        num_workers=args.workers,
    )
    model.fit(loader, epochs=EPOCHS)


if __name__ == "__main__":
    main()
