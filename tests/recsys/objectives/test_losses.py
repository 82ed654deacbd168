"""Losses against cross-entropies computed row by row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.lists.pairs import Pairs
from recsys.objectives import losses
from recsys.objectives.losses import Sets, bpr, calibrated_bce, sampled_softmax


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("corrected", [False, True])
def test_sampled_softmax_leaves_out_accidental_hits(
    random: torch.Generator, corrected: bool
) -> None:
    queries, positives = (torch.randn(6, 4, generator=random) for _ in range(2))
    negatives = torch.randn(5, 4, generator=random)
    ids = torch.tensor([2, 3, 5, 8, 9])
    targets = torch.tensor([1, 2, 5, 9, 10, 5])  # four of them are among the negatives
    log_q = (torch.randn(6, generator=random), torch.randn(5, generator=random))
    found = sampled_softmax(
        queries,
        positives,
        negatives,
        targets=targets,
        negative_ids=ids,
        log_q=log_q if corrected else None,
    )
    for row in range(6):
        kept = ids != targets[row]
        rivals = negatives[kept] @ queries[row]
        own = positives[row] @ queries[row]
        if corrected:
            own, rivals = own - log_q[0][row], rivals - log_q[1][kept]
        logits = torch.cat([own.view(1), rivals])
        torch.testing.assert_close(found[row], F.cross_entropy(logits, torch.tensor(0)))


@pytest.mark.parametrize("chunk", [4, 1 << 20])
@pytest.mark.parametrize("loss", [sampled_softmax, bpr, calibrated_bce])
def test_what_is_a_row_s_own_is_no_negative_of_it(
    loss: Callable[..., Tensor],
    chunk: int,
    random: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each row loses what it does against the others alone; pairs may say the target as well, and
    name what was not drawn."""
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    queries, positives = (torch.randn(4, 4, generator=random) for _ in range(2))
    negatives = torch.randn(7, 4, generator=random)
    targets, ids = torch.tensor([4, 9, 2, 1]), torch.tensor([2, 4, 9, 1, 2, 4, 9])
    sets = Sets(rows=(2, 2), negatives=(3, 4))
    own = Pairs(torch.tensor([0, 0, 2, 2, 2, 3]), torch.tensor([4, 9, 2, 9, 50, 4]))
    found = loss(
        queries, positives, negatives, targets=targets, negative_ids=ids, sets=sets, own=own
    )
    for row, kept in enumerate([[0], [0, 1], [3, 5], [4, 6]]):
        alone = loss(
            queries[row : row + 1],
            positives[row : row + 1],
            negatives[kept],
            targets=targets[row : row + 1],
            negative_ids=ids[kept],
        )
        torch.testing.assert_close(found[row], alone[0])


def test_gradients_are_those_of_cross_entropy(random: torch.Generator) -> None:
    queries = torch.randn(3, 4, generator=random, requires_grad=True)
    negatives = torch.randn(2, 4, generator=random)
    positives = torch.randn(3, 4, generator=random)
    ids, targets = torch.tensor([10, 20]), torch.tensor([1, 2, 3])
    loss = sampled_softmax(queries, positives, negatives, targets=targets, negative_ids=ids)
    (own,) = torch.autograd.grad(loss.sum(), queries)
    logits = torch.cat([(queries * positives).sum(1, keepdim=True), queries @ negatives.T], 1)
    plain = F.cross_entropy(logits, torch.zeros(3, dtype=torch.long), reduction="sum")
    (expected,) = torch.autograd.grad(plain, queries)
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_row_whose_only_negative_is_its_target_costs_and_teaches_nothing(scale: float) -> None:
    queries = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    positives = torch.tensor([[scale, 0.0], [0.0, scale]], requires_grad=True)
    negatives = torch.tensor([[scale, 0.0]], requires_grad=True)
    loss = sampled_softmax(
        queries,
        positives,
        negatives,
        targets=torch.tensor([7, 4]),
        negative_ids=torch.tensor([7]),
    )
    assert loss[0] == 0
    loss.sum().backward()
    for weights in (queries, positives, negatives):
        assert weights.grad is not None and torch.isfinite(weights.grad).all()
    assert queries.grad is not None and queries.grad[0].tolist() == [0.0, 0.0]
    assert queries.grad[1].abs().sum() > 0


@pytest.mark.parametrize("chunk", [15, 1 << 20])
@pytest.mark.parametrize("loss", ["bpr", "bce", "gbce"])
def test_other_losses_are_their_formulas(
    loss: str, chunk: int, random: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row, without the negatives that are the row's own target; and their gradients."""
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    leaves = [torch.randn(n, 4, generator=random, requires_grad=True) for n in (7, 7, 5)]
    targets, ids = torch.tensor([1, 2, 3, 4, 5, 6, 7]), torch.tensor([2, 3, 6, 8, 9])

    def brute(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        rows = []
        for row, target in enumerate(targets):
            own = queries[row] @ positives[row]
            rivals = negatives[ids != target] @ queries[row]
            if loss == "bpr":
                rows.append(-torch.sigmoid(own - rivals).log().mean())
            else:
                power = 1 - 0.8 * (1 - 5 / 40) if loss == "gbce" else 1.0
                both = power * torch.sigmoid(own).log() + (1 - torch.sigmoid(rivals)).log().sum()
                rows.append(-both / (len(rivals) + 1))
        return torch.stack(rows)

    function = {"bpr": bpr, "bce": calibrated_bce, "gbce": calibrated_bce}[loss]
    options = {"calibration": 0.8, "items": 41} if loss == "gbce" else {}
    found = function(*leaves, targets=targets, negative_ids=ids, **options)
    torch.testing.assert_close(found, brute(*leaves))
    weights = torch.arange(1.0, 8.0)
    expected = torch.autograd.grad((brute(*leaves) * weights).sum(), leaves)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves), expected, strict=True
    ):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of three rows, so that there are several of them and a last short one."""
    monkeypatch.setattr(losses, "_CHUNK_SCORES", 15)
    torch.manual_seed(0)
    leaves = [torch.randn(7, 4), torch.randn(7, 4), torch.randn(5, 4)]
    leaves = [leaf.double().requires_grad_() for leaf in leaves]
    targets, ids = torch.tensor([1, 2, 3, 4, 5, 6, 7]), torch.tensor([2, 3, 6, 8, 9])
    weights = torch.arange(1, 8).double()

    def brute(q: Tensor, p: Tensor, n: Tensor) -> Tensor:
        scores = (q @ n.T).masked_fill(targets[:, None] == ids, float("-inf"))
        logits = torch.cat([(q * p).sum(1, keepdim=True), scores], 1)
        return torch.nn.functional.cross_entropy(
            logits, torch.zeros(7, dtype=torch.int64), reduction="none"
        )

    expected = torch.autograd.grad((brute(*leaves) * weights).sum(), leaves)
    found = losses.sampled_softmax(*leaves, targets=targets, negative_ids=ids)
    assert torch.allclose(found.double(), brute(*leaves), atol=1e-5)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves), expected, strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("chunk", [4, 1 << 20])
@pytest.mark.parametrize("loss", [sampled_softmax, bpr, calibrated_bce])
def test_sets_are_as_each_by_itself(
    loss: Callable[..., Tensor],
    chunk: int,
    random: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses and gradients; an id may be in several sets, and a set may have no rows."""
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    leaves = [torch.randn(n, 4, generator=random, requires_grad=True) for n in (6, 6, 7)]
    targets, ids = torch.tensor([4, 9, 4, 2, 9, 5]), torch.tensor([2, 4, 9, 4, 1, 2, 9])
    sets = Sets(rows=(2, 0, 4), negatives=(3, 1, 3))
    found = loss(*leaves, targets=targets, negative_ids=ids, sets=sets)
    parts = zip(
        *(leaf.split(sets.rows) for leaf in leaves[:2]),
        leaves[2].split(sets.negatives),
        targets.split(sets.rows),
        ids.split(sets.negatives),
        strict=True,
    )
    alone = torch.cat([loss(q, p, n, targets=t, negative_ids=i) for q, p, n, t, i in parts])
    torch.testing.assert_close(found, alone)
    weights = torch.arange(1.0, 7.0)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((alone * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
