"""What every method of upgrading must do, whatever it is: taken from the registry."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from upgraded import (
    D_OLD,
    ITEMS,
    Planted,
    Upgraded,
    direct,
    own_loss,
    plant,
    recall,
    upgrade,
)

from recsys.compatible.contract import Bridge, LinearBridge, Losses, Rotation, wider
from recsys.compatible.methods import METHODS, method_of
from recsys.compatible.mixed import Calibration, mixed_items, mixed_queries, renewed_first
from recsys.compatible.options import (
    AlignerConfig,
    BasisTransformationConfig,
    OrthogonalConfig,
    RelativeConfig,
)
from recsys.options import Kind

CONFIGS: dict[str, Kind] = {kind.model_fields["name"].default: kind() for kind in METHODS}
CONFIGS["orthogonal"] = OrthogonalConfig(steps=60)
CONFIGS["orthogonal_relaxed"] = OrthogonalConfig(relaxed=True, contrast=1.0, steps=60)
CONFIGS["aligner_as_published"] = AlignerConfig(retrieval=0.0)
CONFIGS["relative_as_published"] = RelativeConfig(whiten=0.0, centre=False)


@cache
def made(name: str, d_new: int) -> tuple[Planted, Upgraded]:
    torch.manual_seed(0)
    planted = plant(d_new)
    return planted, upgrade(CONFIGS[name], planted)


@pytest.fixture(params=[16, 24])
def d_new(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("name", CONFIGS)
def test_new_queries_find_in_the_old_index_what_old_ones_find(name: str, d_new: int) -> None:
    planted, new = made(name, d_new)
    old = recall(planted.old_queries, planted.old_items, planted.targets)
    across = recall(
        new.bridge.asked(new.queries), new.bridge.stored(planted.old_items), planted.targets
    )
    assert direct(planted) < 0.15 < 0.6 < old
    assert across > 0.9 * old


@pytest.mark.parametrize("name", CONFIGS)
def test_new_items_stand_in_the_old_space_where_old_queries_find_them(
    name: str, d_new: int
) -> None:
    planted, new = made(name, d_new)
    old = recall(planted.old_queries, planted.old_items, planted.targets)
    across = recall(planted.old_queries, new.bridge.items(new.items), planted.targets)
    assert across > 0.8 * old


@pytest.mark.parametrize("name", CONFIGS)
def test_the_new_model_stays_as_good_as_it_was(name: str, d_new: int) -> None:
    planted, new = made(name, d_new)
    known = F.normalize(planted.new_queries, dim=1), F.normalize(planted.new_items, dim=1)
    assert recall(new.queries, new.items, planted.targets) > 0.97 * recall(*known, planted.targets)


@pytest.mark.parametrize("name", CONFIGS)
def test_old_vectors_move_on_into_the_new_space(name: str, d_new: int) -> None:
    planted, new = made(name, d_new)
    moved = new.bridge.onward(planted.old_items)
    assert moved.shape == new.items.shape
    across = recall(new.queries, moved, planted.targets)
    assert across > 0.9 * recall(planted.old_queries, planted.old_items, planted.targets)


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_act_on_the_last_dimension_and_are_saved_with_the_model(name: str) -> None:
    _, new = made(name, 24)
    interests = new.queries[:6].view(2, 3, -1)
    flat = new.bridge.asked(new.queries[:6])
    torch.testing.assert_close(new.bridge.asked(interests).view(6, -1), flat)
    assert not list(new.bridge.parameters()), "what is settled does not learn"
    again = deepcopy(new.bridge)
    for buffer in again.buffers():
        buffer.zero_()
    again.load_state_dict(new.bridge.state_dict())
    torch.testing.assert_close(again.asked(new.queries[:6]), flat)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_index_on_its_way_answers_like_both_halves(name: str, d_new: int) -> None:
    planted, new = made(name, d_new)
    asked, stored = new.bridge.asked(new.queries), new.bridge.stored(planted.old_items)
    before, after = asked @ stored.T, new.queries @ new.items.T
    calibration = Calibration.of(before[:100], after[:100])
    queries = mixed_queries(asked, new.queries)
    for share in (0.0, 0.5, 1.0):
        renewed = renewed_first(ITEMS, share)
        scores = queries @ mixed_items(stored, new.items, renewed, calibration).T
        wanted = torch.where(renewed, after, calibration(before))
        torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)
        least = recall(planted.old_queries, planted.old_items, planted.targets)
        index = mixed_items(stored, new.items, renewed, calibration)
        assert recall(queries, index, planted.targets) > 0.9 * least


@pytest.mark.parametrize("name", ["procrustes", "orthogonal"])
def test_rotations_keep_inner_products(name: str, d_new: int) -> None:
    planted, new = made(name, d_new)
    bridge = new.bridge
    assert isinstance(bridge, Rotation) and bridge.isometric
    vectors = planted.new_items
    turned = bridge.turned(vectors)
    torch.testing.assert_close(turned @ turned.T, vectors @ vectors.T, rtol=0, atol=1e-6)
    # beside old vectors that end in zeros: the first numbers are the old space
    width = turned.shape[1]
    torch.testing.assert_close(
        turned @ wider(planted.old_items, width).T, bridge.items(vectors) @ planted.old_items.T
    )
    moved = bridge.onward(planted.old_items)
    torch.testing.assert_close(
        moved @ moved.T, planted.old_items @ planted.old_items.T, rtol=0, atol=1e-6
    )


def test_a_basis_transformation_keeps_the_models_own_inner_products() -> None:
    _, new = made("basis_transformation", 24)
    raw = F.normalize(torch.randn(50, 24, generator=torch.Generator().manual_seed(1)), dim=1)
    turned = new.bridge.own_items(raw)
    head = F.normalize(raw @ new.bridge.head + new.bridge.hidden(raw), dim=1)
    torch.testing.assert_close(
        turned @ turned.T, (head @ head.T + 4 * raw @ raw.T) / 5, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "penalty"), [("frozen_index", None), ("aligner", 0.0), ("basis_transformation", None)]
)
def test_what_the_old_index_asks_does_not_reach_the_model(name: str, penalty: float | None) -> None:
    planted = plant(24)
    config = CONFIGS[name] if penalty is None else AlignerConfig(weight=penalty)
    learnt = method_of(config).make(config, planted.old, 24)  # type: ignore[union-attr]
    queries, items = planted.new_queries[:50].clone(), planted.new_items.clone()
    targets, rows = planted.targets[:50], torch.arange(ITEMS)

    def gradients(losses: Losses) -> list[Tensor]:
        towers = [queries.requires_grad_(), items.requires_grad_()]
        loss = losses(queries, items[targets], items)
        return list(torch.autograd.grad(loss.sum(), towers, retain_graph=True))

    learning: list[bool] = []

    def watched(q: Tensor, p: Tensor, n: Tensor) -> Tensor:
        learning.append(p.requires_grad or n.requires_grad)
        return own_loss(q, p, n)

    def bridged(q: Tensor, p: Tensor, n: Tensor) -> Tensor:
        return learnt.losses(watched, q, p, n, targets, rows)

    for alone, beside in zip(gradients(own_loss), gradients(bridged), strict=True):
        torch.testing.assert_close(beside, alone, rtol=0, atol=0)
    learns = torch.autograd.grad(bridged(queries, items[targets], items).sum(), learnt.hidden.outer)
    assert learns[0].abs().max() > 0
    # nor do items that the old index lacks learn their place by being negatives there
    assert learning == [True, False] * 2


def test_a_frozen_index_is_told_where_items_stand_once_they_have_learned() -> None:
    planted = plant(24)
    new = upgrade(CONFIGS["frozen_index"], planted, steps=0)
    across = recall(planted.old_queries, new.bridge.items(new.items), planted.targets)
    assert across > 0.9 * recall(planted.old_queries, planted.old_items, planted.targets)


def test_an_old_space_that_borrows_takes_the_models_own_numbers() -> None:
    planted = plant(24)
    config = BasisTransformationConfig(extra=D_OLD - 6)
    new = upgrade(config, planted)
    assert new.items.shape[1] == D_OLD - 6 + 24
    raw = F.normalize(torch.randn(50, 24, generator=torch.Generator().manual_seed(1)), dim=1)
    turned = new.bridge.own_items(raw)
    head = F.normalize(raw @ new.bridge.head + new.bridge.hidden(raw), dim=1)
    inner = (head @ head.T + 4 * raw @ raw.T) / 5
    torch.testing.assert_close(turned @ turned.T, inner, rtol=0, atol=5e-6)
    across = recall(new.bridge.asked(new.queries), planted.old_items, planted.targets)
    assert across > 0.8 * recall(planted.old_queries, planted.old_items, planted.targets)


@pytest.mark.parametrize("name", CONFIGS)
def test_only_relative_descriptions_change_what_lies_in_the_index(name: str) -> None:
    planted, new = made(name, 24)
    stored = new.bridge.stored(planted.old_items)
    assert new.bridge.leaves_index == (stored is planted.old_items)


def test_three_versions_make_a_chain() -> None:
    second = plant(24)
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.randn(24, 24)).Q
    third = Planted(
        second.new_items,
        second.new_items @ turn,
        second.new_queries,
        second.new_queries @ turn,
        second.targets,
    )
    to_first = upgrade(CONFIGS["procrustes"], second).bridge
    to_second = upgrade(CONFIGS["procrustes"], third).bridge
    assert isinstance(to_first, LinearBridge) and isinstance(to_second, LinearBridge)
    chain = to_second.after(to_first)
    least = recall(second.old_queries, second.old_items, second.targets)
    across = recall(chain.asked(third.new_queries), second.old_items, second.targets)
    assert across > 0.9 * least
    moved = recall(third.new_queries, chain.onward(second.old_items), second.targets)
    assert moved > 0.9 * least


def test_every_method_says_what_it_needs() -> None:
    for method in METHODS.values():
        assert method.needs and method.learns_with_model == ("training" in method.needs)
        assert method.learns_with_model == issubclass(method, Bridge)
