"""The one loop: what it repeats, when it stops, what it keeps, what it refuses."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from conformance import Recorder, small, trainer_of, training
from feature_store.columns import HISTORY
from feature_store.errors import ConfigError, RecsysError
from planted import Shape
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group
from recsys.embeddings.options import EmbeddingsConfig, PerFeature
from recsys.inputs import History
from recsys.model import Loss, TrainedModel
from recsys.retrievers.trained import TrainedRetriever
from recsys.training import checkpoint
from recsys.training.options import OptimizerConfig
from recsys.training.trainer import Trainer, Validate

MakeTrainer = Callable[..., Trainer]
SHARDED = PerFeature(shard_above_mb=0)


@pytest.fixture
def make(planted: dict[Shape, Examples], group: Group, tmp_path: Path) -> MakeTrainer:
    """A trainer of a small SASRec with dropout, in `tmp_path / folder`; 8 steps an epoch."""

    def make(
        folder: str = "run",
        *,
        name: str = "sasrec",
        validate: Validate | None = None,
        listener: Recorder | None = None,
        seed: int = 0,
        embeddings: EmbeddingsConfig | None = None,
        **options: Any,
    ) -> Trainer:
        examples = planted["sequences" if name == "sasrec" else "events"]
        return trainer_of(
            small(name, dropout=0.3),
            examples,
            tmp_path / folder,
            group,
            training(**options),
            validate=validate,
            listener=listener,
            seed=seed,
            embeddings=embeddings,
        )

    return make


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of all weights, whole tables included."""
    return {
        name: (value.local_tensor() if hasattr(value, "local_tensor") else value).clone()
        for name, value in trainer.model.state_dict().items()
    }


def assert_equal_weights(one: Trainer, other: Trainer) -> None:
    """Bit for bit."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert [n for n in left if not torch.equal(left[n], right[n])] == []


class Slope(TrainedModel):
    """One weight, whose gradient is the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, step: int) -> Loss:
        """The weight, once a row."""
        return Loss(self.weight * len(batch), torch.tensor(float(len(batch))))


def test_a_step_is_divided_by_the_mean_weight_of_batches_so_far(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    """Of 2, 6 and 1 rows: 2 / 2, 6 / (8 / 2), 1 / (9 / 3). A short batch moves little."""
    reader = planted["sequences"].reader("train", (History("item_id", 8),), ReaderConfig())
    config = training(optimizer=OptimizerConfig(name="sgd", learning_rate=1.0))
    model = Slope()
    trainer = Trainer(model, reader, config, group, tmp_path)
    moved = [0.0]
    for rows in (2, 6, 1):
        trainer.step(Block.of(pa.table({HISTORY: [[1, 2]] * rows})).to_batch())
        moved.append(float(model.weight))
    steps = [before - after for before, after in itertools.pairwise(moved)]
    assert steps == pytest.approx([2 / 2, 6 / 4, 1 / 3])


@pytest.mark.parametrize("planned", [None, 4])
def test_the_schedule_runs_over_the_epochs_that_were_planned(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path, planned: int | None
) -> None:
    """Though fewer are trained: 16 steps of 32 leave half the rate."""
    optimizer = OptimizerConfig(learning_rate=1e-3, schedule="linear")
    trainer = trainer_of(
        small("sasrec"),
        planted["sequences"],
        tmp_path,
        group,
        training(epochs=2, optimizer=optimizer),
        planned_epochs=planned,
    )
    trainer.fit()
    steps = 8 * (planned or 2)
    (rate,) = {one["lr"] for one in trainer.optimizer.dense.param_groups}
    assert trainer.planned_steps == steps and trainer.progress.step == 16
    assert rate == pytest.approx(1e-3 * (1 - 15 / steps))  # of the last step that was made


def scripted(*values: float, metric: str = "NDCG@10") -> Validate:
    """A validation that says these values, one an epoch."""
    script = iter(values)
    return lambda retriever: {metric: next(script)}


@pytest.mark.parametrize("name", ["sasrec", "two_tower"])
def test_a_seed_decides_everything(make: MakeTrainer, name: str) -> None:
    heard = [Recorder() for _ in range(3)]
    trainers = [
        make(str(i), name=name, listener=heard[i], seed=seed, epochs=2)
        for i, seed in enumerate((4, 4, 5))
    ]
    for trainer in trainers:
        torch.manual_seed(trainer.reader.seed)
        trainer.fit()
    assert heard[0].losses == heard[1].losses != heard[2].losses
    assert_equal_weights(trainers[0], trainers[1])
    assert len(set(heard[0].losses)) > 10


def test_the_best_epoch_is_kept_and_patience_ends_the_training(
    make: MakeTrainer, tmp_path: Path
) -> None:
    kept: list[dict[str, torch.Tensor]] = []
    script = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])

    def validate(retriever: TrainedRetriever) -> dict[str, float]:
        assert not retriever.training
        kept.append({n: v.clone() for n, v in retriever.state_dict().items()})
        return {"NDCG@10": next(script)}

    trainer = make(validate=validate, patience=3, epochs=20)
    progress = trainer.fit()
    assert progress.best_epoch == 2 and progress.best == 0.5
    assert [epoch["epoch"] for epoch in progress.history] == [1, 2, 3, 4, 5]
    assert trainer.model.training
    best = {n: torch.zeros_like(v) for n, v in kept[0].items()}
    tensors = {"model": best}
    path = checkpoint.best(tmp_path / "run")
    torch.distributed.checkpoint.load(tensors, checkpoint_id=str(path))
    assert all(torch.equal(best[n], kept[1][n]) for n in best)
    assert not all(torch.equal(best[n], kept[4][n]) for n in best)


def test_without_validation_the_last_epoch_is_the_best(make: MakeTrainer, tmp_path: Path) -> None:
    trainer = make(epochs=2)
    assert trainer.fit().best_epoch == 2
    state = checkpoint.read_state(checkpoint.best(tmp_path / "run"))
    assert state["progress"]["step"] == 16


def test_validation_may_be_rarer_than_epochs(make: MakeTrainer) -> None:
    """And the end of training is measured in any case."""
    progress = make(validate=scripted(0.1, 0.2, 0.3), validate_every=2, epochs=5).fit()
    measured = [epoch["epoch"] for epoch in progress.history if "NDCG@10" in epoch]
    assert measured == [2, 4, 5] and progress.best_epoch == 5


def test_a_metric_that_is_not_measured_is_named(make: MakeTrainer) -> None:
    trainer = make(validate=scripted(0.1, metric="HR@3"), metric="NDCG@10", epochs=1)
    with pytest.raises(ConfigError, match=r"trainer\.metric = 'NDCG@10' is not measured.*HR@3"):
        trainer.fit()


def test_steps_end_the_training_in_the_middle_of_an_epoch(make: MakeTrainer) -> None:
    heard = Recorder()
    progress = make(steps=11, epochs=5, listener=heard, validate=scripted(0.1, 0.2)).fit()
    assert progress.step == len(heard.losses) == 11
    assert [epoch["step"] for epoch in progress.history] == [8, 11]
    assert progress.best_epoch == 2


def test_a_loss_that_is_not_finite_is_an_error_in_one_line(make: MakeTrainer) -> None:
    trainer = make(optimizer=OptimizerConfig(name="sgd", learning_rate=1e30), epochs=2)
    with pytest.raises(RecsysError, match="learning_rate") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value) and "step" in str(caught.value)


def test_bf16_learns(make: MakeTrainer) -> None:
    heard = Recorder()
    make(precision="bf16", epochs=6, listener=heard).fit()
    assert heard.epochs[-1]["loss"] < 0.5 * heard.epochs[0]["loss"]
    plain = Recorder()
    make("fp32", epochs=1, listener=plain).fit()
    assert plain.losses[0] == pytest.approx(heard.losses[0], rel=0.05)
    assert plain.losses[0] != heard.losses[0]


def test_clip_norm_bounds_the_step(make: MakeTrainer) -> None:
    """With SGD at rate 1 the weights move by the gradient itself."""
    moved = {}
    for norm in (None, 0.5, 1e6):
        optimizer = OptimizerConfig(name="sgd", learning_rate=1.0)
        trainer = make(str(norm), steps=1, clip_norm=norm, optimizer=optimizer)
        before = weights(trainer)
        trainer.fit()
        after = weights(trainer)
        moved[norm] = torch.cat([(after[n] - before[n]).flatten() for n in after]).norm().item()
    assert moved[0.5] == pytest.approx(0.5, rel=1e-3)
    assert moved[None] == moved[1e6] > 1


@pytest.mark.parametrize(
    ("name", "embeddings"),
    [("sasrec", None), ("two_tower", None), ("two_tower", SHARDED)],
    ids=["sasrec", "two_tower", "two_tower-sharded"],
)
def test_a_resumed_training_ends_bit_for_bit_as_one_left_alone(
    make: MakeTrainer, tmp_path: Path, name: str, embeddings: EmbeddingsConfig | None
) -> None:
    """From every checkpoint of three epochs, most of them in the middle of one."""
    options: dict[str, Any] = {
        "name": name,
        "embeddings": embeddings,
        "epochs": 3,
        "checkpoint_every_steps": 3,
        "keep": 100,
        "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=5, schedule="cosine"),
    }
    values = (0.1, 0.3, 0.2)
    heard = Recorder()
    torch.manual_seed(1)
    alone = make("alone", validate=scripted(*values), listener=heard, **options)
    progress = alone.fit()
    steps = len(alone.reader)
    found = sorted((tmp_path / "alone").glob("step-*"))
    starts = {int(path.name.removeprefix("step-")): path for path in found}
    assert {3, 6, 9, steps, 2 * steps, 3 * steps} <= set(starts)
    for start in (3, steps, 9 if steps == 8 else 12):
        folder = tmp_path / f"from{start}"
        shutil.copytree(starts[start], folder / starts[start].name)
        again, rest = Recorder(), values[start // steps :]
        torch.manual_seed(99)
        resumed = make(folder.name, validate=scripted(*rest), listener=again, **options)
        resumed_progress = resumed.fit(resume=True)
        assert again.losses == heard.losses[start:]
        assert_equal_weights(resumed, alone)
        for one in (progress, resumed_progress):
            for epoch in one.history:
                epoch.pop("seconds", None)
        assert resumed_progress == progress


def test_a_model_is_told_of_every_epoch_once_also_where_one_goes_on(
    make: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first batch; after a resume within an epoch, of the epoch that goes on."""
    told: list[tuple[int, int, bool]] = []
    options: dict[str, Any] = {"epochs": 3, "checkpoint_every_steps": 3, "keep": 100}
    trainer = make("alone", **options)
    monkeypatch.setattr(
        TrainedRetriever,
        "begin_epoch",
        lambda model, epoch, goes_on: told.append((epoch, trainer.progress.step, goes_on)),
    )
    trainer.fit()
    steps = len(trainer.reader)
    assert told == [(1, 0, False), (2, steps, False), (3, 2 * steps, False)]
    start = checkpoint.folder_of(tmp_path / "alone", steps + 1)
    assert start.exists() and (steps + 1) % 3 == 0
    shutil.copytree(start, tmp_path / "again" / start.name)
    told.clear()
    trainer = make("again", **options)
    trainer.fit(resume=True)
    assert told == [(2, steps + 1, True), (3, 2 * steps, False)]


def test_a_finished_training_has_nothing_to_resume(make: MakeTrainer) -> None:
    options: dict[str, Any] = {"epochs": 10, "patience": 1}
    first = make(validate=scripted(0.5, 0.4), **options)
    done = first.fit()
    assert done.stopped and done.step == 16
    heard = Recorder()
    again = make(validate=scripted(), listener=heard, **options)
    assert again.fit(resume=True) == done
    assert heard.losses == []
    assert_equal_weights(first, again)
    reason = "trainer.patience = 1 validations brought nothing better"
    assert heard.notes == [f"nothing is left to train after step 16: {reason}"]


def test_more_patience_lets_a_training_go_on_that_had_run_out_of_it(make: MakeTrainer) -> None:
    make(validate=scripted(0.5, 0.4), epochs=4, patience=1).fit()
    heard = Recorder()
    again = make(validate=scripted(0.6, 0.7), listener=heard, epochs=4, patience=2)
    assert again.fit(resume=True).best_epoch == 4
    assert heard.notes == ["goes on from step 16, in epoch 3 of 4"]


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"epochs": 2}, "nothing is left to train after step 16: trainer.epochs = 2"),
        ({"epochs": 3, "steps": 16}, "nothing is left to train after step 16: trainer.steps = 16"),
        ({"epochs": 3}, "goes on from step 16, in epoch 3 of 3"),
    ],
)
def test_a_resumed_training_says_from_where(
    make: MakeTrainer, options: dict[str, int], note: str
) -> None:
    make(epochs=2).fit()
    heard = Recorder()
    make(listener=heard, **options).fit(resume=True)
    assert heard.notes == [note]


def test_without_a_checkpoint_a_resumed_training_begins(make: MakeTrainer) -> None:
    heard = Recorder()
    make(listener=heard, steps=1, epochs=1).fit(resume=True)
    assert heard.notes == ["there is no checkpoint to go on from: the training begins"]


def test_the_last_checkpoints_are_kept(make: MakeTrainer, tmp_path: Path) -> None:
    make(epochs=2, checkpoint_every_steps=2, keep=2).fit()
    kept = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert kept == ["step-000000014", "step-000000016"]


def test_the_best_is_kept_besides_the_last(make: MakeTrainer, tmp_path: Path) -> None:
    make(validate=scripted(0.1, 0.9, 0.2, 0.3, 0.4), epochs=5, keep=1).fit()
    kept = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert kept == ["step-000000016", "step-000000040"]
    assert checkpoint.best(tmp_path / "run").name == "step-000000016"


def test_every_epoch_trains_on_every_row_once_in_an_order_of_its_own(
    make: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(epochs=2)
    rows: list[list[tuple[int, ...]]] = []
    step = Trainer.step

    def record(self: Trainer, batch: Batch) -> None:
        rows.append([tuple(row[row != 0].tolist()) for row in batch.padded(HISTORY)])
        step(self, batch)

    monkeypatch.setattr(Trainer, "step", record)
    trainer.fit()
    first, second = ([row for batch in part for row in batch] for part in (rows[:8], rows[8:]))
    assert len(first) == trainer.reader.num_rows and max(map(len, rows)) <= 16
    assert sorted(first) == sorted(second) and first != second


def test_the_schedule_reaches_sharded_tables(make: MakeTrainer) -> None:
    """A rate that falls to nothing moves tables less and less, and then no more."""
    options = {"schedule": "linear", "sharded": "sgd", "sharded_learning_rate": 1.0}
    trainer = make(
        name="two_tower",
        embeddings=SHARDED,
        epochs=2,
        optimizer=OptimizerConfig(**options),  # type: ignore[arg-type]
    )
    rates: list[float] = []
    step = trainer.optimizer.step

    def record() -> None:
        rates.append(trainer.optimizer.fused.param_groups[0]["lr"])
        step()

    trainer.optimizer.step = record  # type: ignore[method-assign]
    before = weights(trainer)
    trainer.fit()
    steps = trainer.planned_steps
    assert rates == pytest.approx([1 - n / steps for n in range(steps)])
    moved = weights(trainer)
    assert any(not torch.equal(before[n], moved[n]) for n in before if "item_id" in n)
    trainer.optimizer.set_rate(0.0)
    trainer.step(next(iter(trainer.reader)))  # beyond the schedule's end: the rate is 0
    after = weights(trainer)
    assert all(torch.equal(after[n], moved[n]) for n in moved if "embeddings" in n)


def test_a_signal_ends_no_writing_that_has_begun(
    make: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the process group would go while the thread that writes still speaks with it."""
    begun, done = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        time.sleep(0.2)
        done.set()

    def interrupted() -> None:
        if trainer.writer._writing is not None and begun.wait(9):
            raise KeyboardInterrupt

    trainer = make(epochs=1, background_checkpoint_mb=100)
    monkeypatch.setattr(checkpoint, "write", slow)
    monkeypatch.setattr(trainer.writer, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert done.is_set()
