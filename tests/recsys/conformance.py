"""What every retriever and every ranker must do, whatever it is: `test_conformance` and
`test_ranker_conformance` run it over the registries."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from torch import Tensor

from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY, LABEL, TARGET
from feature_store.event_log import EventLog
from feature_store.sources.synthetic import Synthetic
from planted import ROWS_OF, Shape
from recsys import rankers
from recsys.config import RunConfig
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group
from recsys.embeddings.options import EmbeddingsConfig, Hashed, PerFeature, Unified
from recsys.evaluation.evaluator import Evaluator, Result
from recsys.evaluation.options import EvaluationConfig
from recsys.evaluation.predictions import Predictions
from recsys.export.bundle import write_bundle
from recsys.export.generator import GeneratorExport
from recsys.lists.pairs import Pairs
from recsys.model import Model
from recsys.options import ModelConfig
from recsys.rankers.base import Ranker
from recsys.retrievers import RETRIEVERS, retriever_class
from recsys.retrievers.base import Candidates, VectorRetriever
from recsys.retrievers.trained import TrainedRetriever
from recsys.runs.build import build_model, is_trained
from recsys.runs.learn import trainer_of as trainer_of_run
from recsys.runs.learnt import learnt_model
from recsys.serving.index.options import ExactConfig, IndexConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender
from recsys.training.options import OptimizerConfig, TrainerConfig
from recsys.training.trainer import Trainer

# Options that make any retriever small and its training a function of its batches alone.
_SMALL = {
    "width": 16,
    "hidden": (16,),
    "attention_hidden": (8,),
    "dropout": 0.0,
    "max_length": 8,
    "negatives": 64,
    "negative_sets": 2,
    "neighbours": 10,
    "clusters": 6,
    "components": 8,
    "factors": 16,
    "rounds": 3,
    "list_size": 9,
    "learning_rate": 0.05,
}
_SMALL_ENCODER = {
    **{"width": 16, "layers": 1, "heads": 1, "window": 8, "vocabulary": 400, "dropout": 0.0},
    "attributes": ("title", "blurb"),
}
LAYOUTS = {
    "per_feature": PerFeature(),
    "hashed": Hashed(budget_mb=0.006),
    "unified": Unified(budget_mb=0.006, probes=2),
}
TRAINED = [name for name in RETRIEVERS if issubclass(retriever_class(name), TrainedRetriever)]
KS = (1, 10, 20)


def class_of(name: str) -> Any:
    """The class of the retriever or ranker called `name`."""
    return rankers.ranker_class(name) if name in rankers.RANKERS else retriever_class(name)


def small(name: str, **options: Any) -> Any:
    """A small config of the retriever or ranker called `name`."""
    kind: Any = class_of(name).Config
    if "backbone" in kind.model_fields:
        options["backbone"] = small("sasrec", **options.get("backbone", {}))
    if name == "recformer":
        options["text"] = {**_SMALL_ENCODER, **options.get("text", {})}
        options.setdefault("targets_per_user", 4)
    elif "text" in kind.model_fields and ("text" in options or name == "unisrec"):
        adapted = {} if name == "two_tower" else {"dropout": 0.0}
        options["text"] = {"dimensions": 16, **adapted, **options.get("text", {})}
    for option, value in _SMALL.items():
        if option in kind.model_fields and option not in options:
            with suppress(ValidationError):  # of no use with the other options
                kind(**options, **{option: value})
                options[option] = value
    return kind(**options)


def shape_of(name: str) -> Shape:
    """The planted examples that a model trains on."""
    rows_of = class_of(name).rows_of
    if rows_of.labels:
        return "labelled"  # with a history of everything, whoever reads it
    shapes = ((shape, planted) for shape, planted in ROWS_OF.items() if not planted.labels)
    return next(shape for shape, planted in shapes if planted.per == rows_of.per)


def training(**options: Any) -> TrainerConfig:
    """Training on the planted log; about 200 steps in 25 epochs."""
    defaults = {"epochs": 25, "optimizer": OptimizerConfig(learning_rate=1e-2)}
    return TrainerConfig(**{**defaults, **options})


@dataclass
class Recorder:
    """Listens to a training."""

    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """Keep the loss."""
        self.losses.append(loss)

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Keep the figures."""
        self.epochs.append(metrics)

    def note(self, text: str) -> None:
        """Keep what it says."""
        self.notes.append(text)


def run_config(
    config: ModelConfig,
    trainer: TrainerConfig | None = None,
    *,
    embeddings: EmbeddingsConfig | None = None,
    reader: ReaderConfig | None = None,
    seed: int = 0,
) -> RunConfig:
    """A run of a model over the planted log."""
    kind = "ranker" if config.name in rankers.RANKERS else "retriever"
    rows = 16 if class_of(config.name).rows_of.per == "user" else 96
    parts: dict[str, Any] = {
        kind: config,
        "trainer": trainer or training(),
        "embeddings": embeddings or PerFeature(),
        "reader": reader or ReaderConfig(batch_size=rows),
    }
    return RunConfig(name="planted", seed=seed, data=Synthetic(), **parts)


def trainer_of(
    config: ModelConfig,
    examples: Examples,
    folder: Path,
    group: Group,
    trainer: TrainerConfig | None = None,
    *,
    embeddings: EmbeddingsConfig | None = None,
    reader: ReaderConfig | None = None,
    seed: int = 0,
    **options: Any,
) -> Trainer:
    """A trainer of a fresh model, ready to `fit`; it leaves checkpoints in `folder`."""
    run = run_config(config, trainer, embeddings=embeddings, reader=reader, seed=seed)
    return trainer_of_run(run, examples, group, folder, **options)


def fresh(
    config: ModelConfig,
    examples: Examples,
    embeddings: EmbeddingsConfig | None = None,
    seed: int = 0,
) -> Any:
    """A model that has learned nothing, the same for the same seed."""
    return build_model(run_config(config, embeddings=embeddings, seed=seed), examples)


def learn(
    config: ModelConfig,
    examples: Examples,
    folder: Path,
    group: Group,
    trainer: TrainerConfig | None = None,
    *,
    embeddings: EmbeddingsConfig | None = None,
    reader: ReaderConfig | None = None,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A model that was trained or fitted, as a run leaves it."""
    run = run_config(config, trainer, embeddings=embeddings, reader=reader, seed=seed)
    if is_trained(run):
        trainer_of_run(run, examples, group, folder, **options).fit()
    model = learnt_model(run, examples, folder)
    if isinstance(model, VectorRetriever):
        model.prepare(examples.candidates())
    return model


def learns_alike_in_bf16(
    config: ModelConfig, examples: Examples, folder: Path, group: Group, **options: Any
) -> bool:
    """Whether two steps in bf16 lose what they do in fp32, to a digit and a half."""
    losses = {}
    for precision in ("fp32", "bf16"):
        heard, trainer = Recorder(), training(epochs=1, steps=2, precision=precision)
        torch.manual_seed(0)
        trainer_of(
            config, examples, folder / precision, group, trainer, listener=heard, **options
        ).fit()
        losses[precision] = heard.losses
    both = torch.tensor(list(losses.values()))
    return both.shape == (2, 2) and torch.allclose(both[0], both[1], rtol=0.03)


def predict(ranker: Ranker, examples: Examples, group: Group, role: str = "test") -> Predictions:
    """What a ranker predicts of the rows of a role."""
    user = examples.schema.user
    reader = examples.reader(
        role,
        ranker.inputs,
        ReaderConfig(batch_size=64, lanes=group.world),
        extra=(user, *ranker.judged_by),
        rank=group.rank,
        world=group.world,
    )
    return Predictions.by_task(ranker, reader, user, group)[LABEL]


def evaluator_of(examples: Examples, ks: tuple[int, ...] = KS) -> Evaluator:
    """Full ranking without what was seen."""
    user = examples.schema.user
    return Evaluator(EvaluationConfig(ks=ks), examples.candidates(), exclude_seen=True, user=user)


def bundle_of(
    retriever: VectorRetriever,
    examples: Examples,
    log: EventLog,
    folder: Path,
    index: IndexConfig = ExactConfig(),  # noqa: B008 (frozen)
    **options: Any,
) -> Recommender:
    """The bundle of a retriever, opened."""
    part = GeneratorExport(
        retriever,
        examples,
        examples.candidates(),
        index=index,
        golden=8,
        about=About(run="conformance", model="planted"),
        **options,
    )
    catalogue = Catalogue(log.folder, log.schema)
    return Recommender(write_bundle(folder, {"generator": part}, catalogue))


def measure(
    retriever: VectorRetriever, examples: Examples, group: Group, role: str = "test"
) -> Result:
    """The figures of a retriever on the requests of a role."""
    reader = examples.reader(
        role,
        retriever.inputs,
        ReaderConfig(batch_size=64, lanes=group.world),
        extra=(examples.schema.user, HISTORY, TARGET),
        rank=group.rank,
        world=group.world,
    )
    return evaluator_of(examples).evaluate(retriever, reader, group)


def request_table(retriever: VectorRetriever, examples: Examples, role: str = "test") -> pa.Table:
    """Encoded requests with the columns that a retriever reads."""
    table = pq.read_table(examples.folder / f"{role}.parquet")
    return table.select(list(dict.fromkeys([HISTORY, *(one.name for one in retriever.inputs)])))


def rows_of(ranker: Ranker, examples: Examples, role: str = "test") -> pa.Table:
    """Encoded rows with the columns that a ranker reads: of the request, and the item."""
    table = pq.read_table(examples.folder / f"{role}.parquet")
    return table.select([*(one.name for one in ranker.inputs), ranker.item])


def batch_from(model: Model, table: pa.Table) -> Batch:
    """A batch of encoded requests."""
    return Block.of(table).to_batch()


def answer(retriever: VectorRetriever, table: pa.Table, k: int = 10) -> Candidates:
    """The k best of every request, without what was seen."""
    batch = batch_from(retriever, table)
    return retriever.retrieve(batch, k, Pairs.of_padded(batch.padded(HISTORY)))


def assert_same_answers(one: Candidates, other: Candidates, tolerance: float = 1e-4) -> None:
    """Equal scores place by place, and equal items wherever no tie allows another order."""
    scale = one.scores[one.scores.isfinite()].abs().max().clamp(min=1)
    torch.testing.assert_close(
        other.scores / scale, one.scores / scale, atol=tolerance, rtol=0, msg="scores differ"
    )
    differs = (one.ids != other.ids) & ~_tied(one.scores / scale, tolerance)
    assert not differs.any(), f"{int(differs.sum())} items differ that no tie explains"


def _tied(scores: Tensor, tolerance: float) -> Tensor:
    """Places [B, k] whose neighbour scores the same; the last place may tie with what is cut."""
    close = (scores[:, 1:] - scores[:, :-1]).abs() <= 2 * tolerance
    last = torch.ones_like(close[:, :1])
    return torch.cat([close, last], 1) | torch.cat([torch.zeros_like(last), close], 1)
