"""Optimizers: one schedule, which reaches dense weights and fused tables alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from feature_store.errors import ConfigError
from recsys.distributed import Group, join
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import Embeddings, materialise
from recsys.training.optimizers import Optimizer, fuse
from recsys.training.options import OptimizerConfig, TableOptimizer
from recsys.training.sharding import shard


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({}, {0: 1, 5: 1, 100: 1}),
        ({"warmup_steps": 4}, {0: 1 / 4, 1: 2 / 4, 3: 1, 4: 1, 9: 1}),
        ({"schedule": "linear"}, {0: 1, 5: 0.5, 10: 0, 12: 0}),
        ({"schedule": "linear", "final": 0.2}, {0: 1, 5: 0.6, 10: 0.2}),
        ({"schedule": "cosine"}, {0: 1, 5: 0.5, 10: 0}),
        ({"schedule": "cosine", "final": 0.5}, {0: 1, 5: 0.75, 10: 0.5, 99: 0.5}),
        ({"schedule": "linear", "warmup_steps": 2}, {0: 0.5, 1: 1, 2: 1, 6: 0.5, 10: 0}),
        ({"schedule": "linear", "warmup_steps": 20}, {9: 0.5, 19: 1, 20: 1}),
    ],
)
def test_the_schedule_by_hand(options: dict, factors: dict[int, float]) -> None:
    config = OptimizerConfig(**options)
    found = {step: config.factor(step, 10) for step in factors}
    assert found == pytest.approx(factors)


@pytest.mark.parametrize(
    "options", [{"learning_rate": 0}, {"name": "lion"}, {"final": 1.5}, {"momentum": 0.9}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        OptimizerConfig(**options)


class Model(nn.Module):
    """A table of ids and a bag, both sharded, and a dense layer."""

    def __init__(self, shard_above_mb: float = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        features = [FeatureSpec("item", "item", 10), FeatureSpec("tags", "tags", 6, pooled=True)]
        config = PerFeature(shard_above_mb=shard_above_mb, init_std=1)
        self.embeddings = Embeddings(make_layout(features, 4, config))
        self.layer = nn.Linear(4, 1)

    def forward(self, ids: Tensor, tags: Tensor) -> Tensor:
        found = self.embeddings({"item": ids}, {"tags": tags})
        return self.layer(found["item"] * found["tags"]).sum()


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with join("cpu") as found:
        yield found


IDS, TAGS = torch.tensor([2, 5]), torch.tensor([[1, 3], [4, 0]])


def one_step(
    group: Group, config: OptimizerConfig, factor: float, model: Model | None = None
) -> dict[str, Tensor]:
    """How far each weight moved in a step."""
    model = model or Model()
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)

    def weights() -> dict[str, Tensor]:
        state = sharded.state_dict()
        return {
            name.split(".")[-2] + "." + name.split(".")[-1]: (
                value.local_tensor() if hasattr(value, "local_tensor") else value
            ).clone()
            for name, value in state.items()
        }

    before = weights()
    optimizer.set_rate(factor)
    optimizer.zero_grad()
    sharded(IDS, TAGS).backward()
    optimizer.step()
    return {name: value - before[name] for name, value in weights().items()}


def test_a_rate_of_0_moves_nothing_and_another_moves_what_was_read(group: Group) -> None:
    config = OptimizerConfig(learning_rate=0.1)
    still = one_step(group, config, 0.0)
    assert set(still) == {"item.weight", "tags.weight", "layer.weight", "layer.bias"}
    assert all(not moved.any() for moved in still.values())
    moved = one_step(group, config, 1.0)
    assert moved["item.weight"].abs().sum(1).nonzero().squeeze(1).tolist() == [2, 5]
    assert moved["tags.weight"].abs().sum(1).nonzero().squeeze(1).tolist() == [1, 3, 4]
    assert moved["layer.weight"].abs().min() > 0


def test_steps_are_proportional_to_the_rate_in_dense_weights_and_in_tables(group: Group) -> None:
    config = OptimizerConfig(name="sgd", sharded="sgd", sharded_learning_rate=0.3)
    whole, half = one_step(group, config, 1.0), one_step(group, config, 0.5)
    for name in whole:
        torch.testing.assert_close(half[name], whole[name] / 2)


def test_sgd_moves_each_kind_of_weight_at_its_own_rate(group: Group) -> None:
    config = OptimizerConfig(
        name="sgd", learning_rate=0.01, sharded="sgd", sharded_learning_rate=0.3
    )
    model = materialise(Model())
    model(IDS, TAGS).backward()
    gradients = {".".join(n.split(".")[-2:]): p.grad for n, p in model.named_parameters()}
    for name, moved in one_step(group, config, 1.0).items():
        gradient = gradients[name]
        assert gradient is not None
        rate = 0.01 if name.startswith("layer") else 0.3
        torch.testing.assert_close(moved, -rate * gradient.to_dense())


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad"])
def test_the_first_step_of_adaptive_optimizers_is_the_rate_itself(group: Group, name: str) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.05)  # type: ignore[arg-type]
    moved = one_step(group, config, 1.0)["layer.weight"]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.05), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("beta2", [0.5, 0.999])
def test_the_second_step_of_adam_is_its_formula(group: Group, name: str, beta2: float) -> None:
    """After gradients g and 3 g, the means are of what was seen, and beta2 of their squares."""
    config = OptimizerConfig(
        name=name,  # type: ignore[arg-type]
        learning_rate=0.01,
        beta2=beta2,
        sharded="sgd",
        sharded_learning_rate=1e-12,  # the tables stay, and so the layer's gradient
    )
    model = Model()
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)
    weights = dict(sharded.named_parameters())["layer.weight"]
    places = [weights.detach().clone()]
    for scale in (1.0, 3.0):
        optimizer.set_rate(1.0)
        optimizer.zero_grad()
        (scale * sharded(IDS, TAGS)).backward()
        optimizer.step()
        places.append(weights.detach().clone())
    mean = (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9**2)
    square = (beta2 * (1 - beta2) * 1 + (1 - beta2) * 9) / (1 - beta2**2)
    second = (places[2] - places[1]) / (places[1] - places[0])
    torch.testing.assert_close(
        second, torch.full_like(second, mean / square**0.5), rtol=1e-3, atol=0
    )


def test_dense_gradients_are_clipped_to_the_norm(group: Group) -> None:
    config = OptimizerConfig(name="sgd", learning_rate=1.0)
    model = Model()
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)
    sharded(IDS, TAGS).backward()
    optimizer.clip(0.01)
    gradients = [p.grad for p in optimizer.dense_parameters if p.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert len(gradients) == 2  # tables are not among them: they moved already
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_a_table_may_have_an_optimizer_of_its_own(group: Group) -> None:
    tables = {
        "item": TableOptimizer(name="sgd", learning_rate=0.5),
        "tags": TableOptimizer(learning_rate=0.25),
    }
    config = OptimizerConfig(sharded="adagrad", sharded_learning_rate=0.1, tables=tables)
    model = materialise(Model())
    model(IDS, TAGS).backward()
    gradients = {".".join(n.split(".")[-2:]): p.grad for n, p in model.named_parameters()}
    for factor in (1.0, 0.5):  # the schedule scales each rate
        moved = one_step(group, config, factor)
        expected = -0.5 * factor * gradients["item.weight"].to_dense()
        torch.testing.assert_close(moved["item.weight"], expected)
        # Adagrad's first step is the rate itself
        read = moved["tags.weight"][[1, 3, 4]].abs()
        torch.testing.assert_close(read, torch.full_like(read, 0.25 * factor), atol=1e-4, rtol=1e-4)
        dense = moved["layer.weight"].abs()
        torch.testing.assert_close(dense, torch.full_like(dense, 1e-3 * factor))


@pytest.mark.parametrize("sharded", ["rowwise_adagrad", "adagrad", "sgd"])
def test_weight_decay_reaches_the_rows_of_sharded_tables_that_were_read(
    group: Group, sharded: Any
) -> None:
    """Once they have moved they shrink by the rate times the decay; the schedule scales both."""
    config = OptimizerConfig(sharded=sharded, sharded_learning_rate=0.1)
    first = {n.split(".")[-2]: p.detach() for n, p in materialise(Model()).named_parameters()}
    for factor in (1.0, 0.5):
        plain = one_step(group, config, factor)
        moved = one_step(group, config.model_copy(update={"weight_decay": 0.4}), factor)
        for name, read in (("item", [2, 5]), ("tags", [1, 3, 4])):
            before, found = first[name], moved[f"{name}.weight"]
            after = (before + plain[f"{name}.weight"])[read] * (1 - 0.1 * factor * 0.4)
            torch.testing.assert_close((before + found)[read], after)
            assert found.any(1).nonzero().squeeze(1).tolist() == read


@pytest.mark.parametrize("shard_above_mb", [0, 64], ids=["sharded", "replicated"])
def test_mini_batch_aware_decay_by_hand(group: Group, shard_above_mb: float) -> None:
    """Gradient [.1, .2], rate .5, lambda .01, read 4 times in an epoch: equation 7 of DIN's paper.
    With one read each step the row is what the equation says twice over."""
    config = OptimizerConfig(
        name="sgd",
        learning_rate=0.5,
        sharded="sgd",
        sharded_learning_rate=0.5,
        mini_batch_aware_decay=0.01,
    )
    features = [FeatureSpec("item", "item", 5), FeatureSpec("tags", "tags", 4, pooled=True)]
    layout = make_layout(features, 4, PerFeature(shard_above_mb=shard_above_mb))
    model = nn.Module()
    model.embeddings = Embeddings(layout)
    model.forward = lambda ids, tags: model.embeddings({"item": ids}, {"tags": tags})  # type: ignore[method-assign, assignment]
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)

    def weights() -> dict[str, Tensor]:
        state = sharded.state_dict()
        return {
            n.split(".")[-2]: v.local_tensor() if hasattr(v, "local_tensor") else v
            for n, v in state.items()
        }

    start, gradient = torch.tensor([1.0, -2.0] * 2), torch.tensor([0.1, 0.2] * 2)
    for table in weights().values():
        table[:] = start
    with torch.no_grad(), optimizer.counting(group.sum):
        for _ in range(2):
            sharded(torch.tensor([3, 1, 3]), torch.tensor([[2, 0], [2, 0], [0, 0]]))
    assert all((table == start).all() for table in weights().values())
    expected = start
    for times in (1, 2):
        optimizer.set_rate(1.0)
        optimizer.zero_grad()
        found = sharded(torch.tensor([3]), torch.tensor([[2]]))
        sum((found[name] @ gradient).sum() for name in ("item", "tags")).backward()
        optimizer.step()
        expected = expected - 0.5 * (gradient + 0.01 / 4 * expected)
        for table, row in (("item", 3), ("tags", 2)):
            torch.testing.assert_close(weights()[table][row], expected, rtol=0, atol=1e-6)
            others = [n for n in range(len(weights()[table])) if n != row]
            assert (weights()[table][others] == start).all()
        if times == 1:
            torch.testing.assert_close(expected, torch.tensor([0.94875, -2.0975] * 2))
    with torch.no_grad():  # what answers shrinks nothing
        model.eval()
        sharded(torch.tensor([3]), torch.tensor([[2]]))
    torch.testing.assert_close(weights()["item"][3], expected, rtol=0, atol=1e-6)


def test_what_is_read_to_answer_does_not_decay(group: Group) -> None:
    config = OptimizerConfig(weight_decay=0.4, sharded="sgd", sharded_learning_rate=0.1)
    model = Model()
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)
    before = [kernel.split_embedding_weights()[0].clone() for kernel in optimizer._kernels]
    assert len(before) == 2
    with torch.no_grad():
        sharded(IDS, TAGS)
    optimizer.step()
    for kernel, old in zip(optimizer._kernels, before, strict=True):
        assert torch.equal(kernel.split_embedding_weights()[0], old)


def test_fused_adam_gets_its_second_moment_s_decay() -> None:
    """As its kernel names it; there is none on CPUs."""
    model = Model()
    fuse(model, OptimizerConfig(sharded="adam", beta2=0.9), "cuda")
    for weights in model.embeddings.sharded.parameters():
        (options,) = weights._optimizer_kwargs  # type: ignore[attr-defined]
        assert options == {"lr": 0.02, "beta2": 0.9}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_weight_decay_of_a_replicated_table_leaves_rows_that_nobody_read(
    group: Group, name: Any
) -> None:
    """And moves the others as torch's own optimizer does."""
    decayed = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5)
    moved = one_step(group, decayed, 1.0, Model(shard_above_mb=64))
    twin = Model(shard_above_mb=64)
    optimizers = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
    }
    before = {n: p.detach().clone() for n, p in twin.named_parameters()}
    twin(IDS, TAGS).backward()
    optimizers[name](twin.parameters(), lr=0.1, weight_decay=0.5).step()
    rows = {"item.weight": IDS.tolist(), "tags.weight": [1, 3, 4]}
    for path, weights in twin.named_parameters():
        key = ".".join(path.split(".")[-2:])
        expected = weights.detach() - before[path]
        if key in rows:
            left = [row for row in range(len(expected)) if row not in rows[key]]
            assert expected[left].any() and not moved[key][left].any()
            expected[left] = 0
        torch.testing.assert_close(moved[key], expected)


def test_fused_adam_is_refused_on_cpus() -> None:
    message = "table (item|tags) is sharded .* fused Adam on CPUs.*'rowwise_adagrad'"
    with pytest.raises(ConfigError, match=message):
        fuse(Model(), OptimizerConfig(sharded="adam"))


def test_optimizers_of_tables_that_are_not_sharded_are_refused() -> None:
    tables = {"itme": TableOptimizer(name="sgd")}
    with pytest.raises(
        ConfigError, match=r"tables\.itme: no sharded table; sharded are: item, tags"
    ):
        fuse(Model(), OptimizerConfig(tables=tables))
    with pytest.raises(ConfigError, match="none is sharded"):
        fuse(nn.Linear(2, 1), OptimizerConfig(tables=tables))


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "sgd"])
def test_state_is_made_without_moving_a_weight(group: Group, name: str) -> None:
    """So that what a checkpoint does not hold of a new feature starts as new."""
    config = OptimizerConfig(name=name, weight_decay=0.1)  # type: ignore[arg-type]
    model = Model()
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)
    before = [weights.detach().clone() for weights in optimizer.dense_parameters]
    optimizer.make_state()
    for weights, old in zip(optimizer.dense_parameters, before, strict=True):
        assert torch.equal(weights, old)
        for value in optimizer.dense.state[weights].values():
            assert value is None or not value.any()
