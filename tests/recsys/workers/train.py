"""Trains and measures the cases of a JSON file, on as many processes as torchrun started."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conformance import LAYOUTS, TRAINED, Recorder, fresh, measure, small, trainer_of, training
from recsys.embeddings.layout import EmbeddingsConfig, FeatureSpec, make_layout
from recsys.embeddings.tables import Embeddings
from recsys.examples import Examples
from recsys.optimizers import OptimizerConfig, fuse
from recsys.reader import ReaderConfig
from recsys.retrievers.base import FittedRetriever, TrainedRetriever
from recsys.training.distributed import Group, join, shard

CHECKPOINT_STEP = 4  # in the middle of an epoch of 8


@dataclass(frozen=True)
class Case:
    """A retriever and its tables; `folder` takes checkpoints and `outcome.pt`."""

    retriever: str
    layout: str
    sharded: bool
    examples: str
    folder: str

    @property
    def embeddings(self) -> EmbeddingsConfig:
        """The layout, with all tables sharded or none."""
        change = {"shard_above_mb": 0 if self.sharded else 64}
        return LAYOUTS[self.layout].model_copy(update=change)


def work(case: Case, group: Group) -> None:
    """Train for two epochs, or go on from the checkpoint that lies in the folder, and measure."""
    examples, folder, recorder = Examples(Path(case.examples)), Path(case.folder), Recorder()
    config = small(case.retriever)
    rows = {"sequences": 16, "events": 104}[examples.summary.shape]
    if case.retriever in TRAINED:
        trainer = trainer_of(
            config,
            examples,
            folder / "checkpoints",
            group,
            training(
                epochs=2,
                optimizer=OptimizerConfig(learning_rate=2e-3),
                checkpoint_every_steps=CHECKPOINT_STEP,
                keep=100,
            ),
            embeddings=case.embeddings,
            reader=ReaderConfig(batch_size=rows, lanes=2),
            validate=lambda model: measure(model, examples, group, "validation").metrics,
            listener=recorder,
        )
        trainer.fit(resume=True)
        retriever = trainer.model.module
        while not isinstance(retriever, TrainedRetriever):
            retriever = retriever.module
    else:
        retriever = fresh(config, examples)
        assert isinstance(retriever, FittedRetriever)
        retriever.fit(examples.interactions(), examples)
    retriever.eval()
    result = measure(retriever, examples, group)
    outcome = {
        "losses": torch.tensor(recorder.losses),
        "validation": [e["NDCG@10"] for e in recorder.epochs],
        "vectors": retriever.item_matrix(torch.arange(examples.num_items)),
        "metrics": result.metrics,
        "users": result.per_user["user"].to_pylist(),
    }
    if group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(outcome, folder / "outcome.pt")


def outcome(case: Case) -> dict[str, Any]:
    """What `work` measured."""
    return torch.load(Path(case.folder) / "outcome.pt")


def look_up_uneven_bags(group: Group) -> None:
    """Bags of as many rows as there are items on rank 0, and of one fewer on the others."""
    specs = [FeatureSpec(name, name, 12, pooled=True) for name in ("badges", "words")]
    embeddings = Embeddings(make_layout(specs, 4, EmbeddingsConfig(shard_above_mb=0)))
    for table in embeddings.parameters():
        torch.nn.init.ones_(table)
    fuse(embeddings, OptimizerConfig())
    model = shard(embeddings, group)
    rows = 6 - group.rank
    bags = {"badges": torch.ones(rows, 2).long(), "words": torch.tensor([[3, 0]] * 5 + [[0, 0]])}
    found = model({}, bags)
    torch.testing.assert_close(found["badges"], torch.ones(rows, 4))
    torch.testing.assert_close(found["words"], torch.tensor([[1.0] * 4] * 5 + [[0.0] * 4]))


if __name__ == "__main__":
    with join("cpu") as everyone:
        look_up_uneven_bags(everyone)
        for one in json.loads(Path(sys.argv[1]).read_text()):
            work(Case(**one), everyone)
