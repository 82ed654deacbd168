"""Training, checkpoints, figures and bundles on one device and another.

What is marked `cuda` needs a GPU: `python -m benchmarks.gpu` runs it there. Where the device is a
parameter, the same test runs on the CPU as well, so that it cannot be wrong unseen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from conformance import (
    Recorder,
    assert_same_answers,
    batch_from,
    bundle_of,
    measure,
    request_table,
    run_config,
    shape_of,
    small,
    trainer_of,
    training,
)
from feature_store.columns import HISTORY
from feature_store.event_log import EventLog
from planted import Shape, raw_requests
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import Embeddings, materialise
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Candidates
from recsys.runs.learnt import learnt_model
from recsys.training.growth import unwrap
from recsys.training.optimizers import Optimizer, fuse
from recsys.training.options import OptimizerConfig
from recsys.training.sharding import shard

cuda = pytest.mark.cuda
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]
WAYS = [
    ("cpu", "cpu"),
    *(pytest.param(*way, marks=cuda) for way in (("cpu", "cuda"), ("cuda", "cpu"), ("cuda",) * 2)),
]
SHARDED = PerFeature(shard_above_mb=0)
STEPS = 6


def train(
    examples: Examples,
    folder: Path,
    name: str,
    steps: int,
    device: str,
    embeddings: PerFeature,
    *,
    resume: bool = False,
) -> list[float]:
    """The losses of so many steps, without dropout, which differs from device to device."""
    recorder = Recorder()
    with join(device) as group:
        trainer = trainer_of(
            small(name),
            examples,
            folder,
            group,
            training(steps=steps),
            embeddings=embeddings,
            listener=recorder,
        )
        trainer.fit(resume=resume)
    return recorder.losses


@pytest.mark.parametrize(("saved", "loaded"), WAYS)
@pytest.mark.parametrize(
    ("name", "embeddings"),
    [("sasrec", PerFeature()), ("two_tower", SHARDED)],
    ids=["replicated", "sharded"],
)
def test_a_checkpoint_of_one_device_goes_on_on_another(
    planted: dict[Shape, Examples],
    tmp_path: Path,
    name: str,
    embeddings: PerFeature,
    saved: str,
    loaded: str,
) -> None:
    examples = planted[shape_of(name)]
    whole = train(examples, tmp_path / "whole", name, STEPS, saved, embeddings)
    first = train(examples, tmp_path / "parts", name, STEPS // 2, saved, embeddings)
    rest = train(examples, tmp_path / "parts", name, STEPS, loaded, embeddings, resume=True)
    assert len(rest) == STEPS - len(first) == STEPS // 2
    exactly = saved == loaded == "cpu"
    tolerance = 0.0 if exactly else 2e-3  # of losses; sums run in another order elsewhere
    assert first + rest == pytest.approx(whole, rel=tolerance, abs=0)


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_trained_on_a_device_answers_alike_on_the_cpu_and_from_a_bundle(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path: Path, device: str
) -> None:
    examples, config = planted["sequences"], small("sasrec")
    with join(device) as group:
        trainer = trainer_of(config, examples, tmp_path, group, training(epochs=2))
        trainer.fit()
        there: Any = unwrap(trainer.model)
        assert next(there.parameters()).device.type == device
        there.eval().prepare(examples.candidates().to(group.device))
        figures = measure(there, examples, group).metrics
        lists = answer_on(there, examples, group.device)
    here: Any = learnt_model(run_config(config), examples, tmp_path)
    here.prepare(examples.candidates())
    assert_same_answers(answer_on(here, examples, torch.device("cpu")), lists, 1e-3)
    with join("cpu") as group:
        assert measure(here, examples, group).metrics == pytest.approx(figures, abs=0.02)
    recommender = bundle_of(here, examples, planted_log, tmp_path / "bundle")
    bundle = recommender.recommend(requests=raw_requests(examples), k=5)
    items = examples.vocabulary("item_id").decode(lists.ids.flatten().numpy()).to_pylist()
    agree = sum(one == other for one, other in zip(bundle["item"], items, strict=True))
    assert agree > 0.98 * len(items)


def answer_on(model: Any, examples: Examples, device: torch.device) -> Candidates:
    """The five best of every test request, brought to the CPU."""
    batch = batch_from(model, request_table(model, examples)).to(device)
    found = model.retrieve(batch, 5, Pairs.of_padded(batch.padded(HISTORY)))
    return Candidates(*(part.cpu() for part in found))


@cuda
def test_fused_adam_moves_sharded_tables_as_adam_does() -> None:
    """Every row is read in every step, where the fused kernel and torch's Adam agree."""
    config = OptimizerConfig(sharded="adam", sharded_learning_rate=0.05, beta2=0.9)
    layout = make_layout([FeatureSpec("item", "item", 6)], 8, SHARDED)
    ids, weight = torch.arange(1, 6), torch.linspace(-1, 1, 40).view(5, 8)
    plain = materialise(Embeddings(layout))
    adam = torch.optim.Adam(plain.parameters(), lr=0.05, betas=(0.9, 0.9))
    with join("cuda") as group:
        model = Embeddings(layout)
        fuse(model, config, "cuda")
        sharded = shard(model, group, config)
        optimizer = Optimizer(sharded, config)
        for step in range(5):
            optimizer.set_rate(1.0)
            optimizer.zero_grad()
            there = sharded({"item": ids.cuda()})["item"]
            (there.tanh() * weight.cuda() * (step + 1)).sum().backward()
            optimizer.step()
            adam.zero_grad()
            (plain({"item": ids})["item"].tanh() * weight * (step + 1)).sum().backward()
            adam.step()
        moved = sharded({"item": ids.cuda()})["item"].cpu()
    torch.testing.assert_close(moved, plain({"item": ids})["item"], atol=1e-4, rtol=1e-4)


@cuda
def test_one_process_talks_to_itself_through_nccl() -> None:
    with join("cuda") as group:
        assert dist.get_backend() == "nccl" and group.device.type == "cuda"
        assert dist.get_backend(group.background) == "gloo"
        value = torch.arange(3.0, device=group.device)
        dist.all_reduce(value)
        assert value.tolist() == [0, 1, 2]
        parts = [torch.empty(3, device=group.device)]
        dist.all_gather(parts, value)
        assert parts[0].tolist() == [0, 1, 2]
        dist.barrier()
        assert group.gather({"rank": group.rank}, background=True) == [{"rank": 0}]
