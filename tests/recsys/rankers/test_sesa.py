"""SESA: contributions by name that sum to the score."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from conformance import batch_from, fresh, learn, rows_of, small, training
from feature_store.errors import ConfigError
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.rankers.sesa import INTERESTS, SESA


@pytest.fixture(scope="module")
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["labelled"]


@pytest.fixture(scope="module")
def sesa(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> SESA:
    options = small("sesa", concepts="genre", beta=1.0)
    with join("cpu") as group:
        ranker = learn(
            options, examples, tmp_path_factory.mktemp("sesa"), group, training(epochs=8)
        )
    assert isinstance(ranker, SESA)
    return ranker.eval()


@torch.no_grad()
def test_named_contributions_sum_to_the_logit_and_each_is_what_it_says(
    sesa: SESA, examples: Examples
) -> None:
    assert sesa.concepts == ("g0", "g1", "g2", "g3")
    inputs = sesa.inputs_of(batch_from(sesa, rows_of(sesa, examples).slice(0, 30)))
    items = torch.arange(examples.num_items).repeat(30, 1)
    contributions, bias = sesa.explain(inputs, items)
    state = sesa.encode(inputs)
    logits = sesa.score(state, items).double().squeeze(2)
    assert contributions.shape == (*items.shape, 4)
    # a logit is a float32, rounded by a part in 2**24 at most: below 16 that is less than 1e-6
    slack = (logits.abs() * 2**-24).clamp(min=1e-6)
    assert ((contributions.sum(2) + bias - logits).abs() <= slack).all()
    for place in range(4):
        without = state[INTERESTS].clone()
        without[:, place] = 0
        changed = sesa.score(state | {INTERESTS: without}, items).double().squeeze(2)
        assert ((logits - changed - contributions[..., place]).abs() <= 2 * slack).all()


@torch.no_grad()
def test_the_bias_is_all_that_no_concept_says(examples: Examples) -> None:
    """Two requests' and two items' biases, by hand: they add up, whoever meets whom."""
    ranker = fresh(small("sesa", concepts="genre"), examples).eval()
    inputs = ranker.inputs_of(batch_from(ranker, rows_of(ranker, examples).slice(0, 2)))
    bias = ranker.explain(inputs, torch.tensor([[1, 2], [1, 2]])).bias
    torch.testing.assert_close(bias[0, 0] + bias[1, 1], bias[0, 1] + bias[1, 0])
    ranker.bias += 0.5
    more = ranker.explain(inputs, torch.tensor([[1, 2], [1, 2]])).bias
    torch.testing.assert_close(more, bias + 0.5)


@torch.no_grad()
def test_a_concept_speaks_for_items_or_against_them(examples: Examples) -> None:
    ranker = fresh(small("sesa", concepts="genre"), examples).eval()
    inputs = ranker.inputs_of(batch_from(ranker, rows_of(ranker, examples).slice(0, 2)))
    items = torch.tensor([[1, 2], [1, 2]])
    before = ranker.explain(inputs, items).contributions
    ranker.weights[1] = -ranker.weights[1]
    after = ranker.explain(inputs, items).contributions
    assert (before > 0).all()
    torch.testing.assert_close(after, before * torch.tensor([1.0, -1.0, 1.0, 1.0]).double())


@torch.no_grad()
def test_concepts_are_those_of_the_items(sesa: SESA, examples: Examples) -> None:
    rows = torch.arange(1, examples.num_items)
    labels, logits = sesa.labelled(rows), sesa.recognised(rows)
    ids = examples.item_column(examples.schema["genre"])[1:]
    assert torch.equal(labels.sum(1) > 0, ids > 0)
    known = ids > 0
    assert torch.equal(labels[known].argmax(1) + 1, ids[known])
    sold = known & (examples.train_events[1:] > 0)
    assert (logits[sold].argmax(1) == labels[sold].argmax(1)).float().mean() > 0.95


def test_only_labelled_items_teach_concepts(examples: Examples) -> None:
    """By hand: beta times the mean of four softplus(z) - z * label, where an item has a label."""
    losses = {}
    for beta in (0.0, 2.0):
        torch.manual_seed(0)
        ranker = fresh(small("sesa", concepts="genre", beta=beta), examples)
        names = [*(asked.name for asked in ranker.inputs), *ranker.judged_by]
        table = pq.read_table(examples.folder / "train.parquet").select(names).slice(0, 50)
        batch = batch_from(ranker, table)
        losses[beta] = ranker(batch, 0).total
    items = batch.id(ranker.item)
    with torch.no_grad():
        z, label = ranker.recognised(items), ranker.labelled(items)
    each = (torch.nn.functional.softplus(z) - z * label).mean(1)
    taught = 2 * each[label.any(1)].sum()
    torch.testing.assert_close(losses[2.0] - losses[0.0], taught, rtol=1e-4, atol=1e-4)
    assert not label.any(1).all()


def test_the_same_network_without_names_has_no_reasons(examples: Examples) -> None:
    free = fresh(small("sesa", concepts="genre", bottleneck=False), examples)
    bound = fresh(small("sesa", concepts="genre"), examples)
    count = [sum(p.numel() for p in ranker.parameters()) for ranker in (free, bound)]
    assert free.concepts == () and count[0] == count[1]
    with pytest.raises(ConfigError, match="no concepts"):
        free.explain({}, torch.zeros(1, 1, dtype=torch.int64))


@pytest.mark.parametrize("name", ["list_price", "item_id", "nothing"])
def test_concepts_need_a_feature_that_names_them(name: str, examples: Examples) -> None:
    with pytest.raises(ConfigError, match=r"ranker\.concepts .*; the log has: .*genre"):
        fresh(small("sesa", concepts=name), examples)
