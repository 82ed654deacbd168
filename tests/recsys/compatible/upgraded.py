"""Two planted models of the same items: the new space is the old one turned, with noise, and
perhaps with more numbers that know more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Fitted, Learnt, OldItems, Paired, wider
from recsys.compatible.methods import method_of
from recsys.compatible.orthogonal import rotation_of
from recsys.options import Kind

ITEMS, QUERIES, D_OLD = 300, 600, 16
UNKNOWN = 20  # items that the old model lacks: the last ones


@dataclass
class Planted:
    """Vectors of both models; query q [Q, .] is for item `targets` [Q]."""

    old_items: Tensor
    new_items: Tensor
    old_queries: Tensor
    new_queries: Tensor
    targets: Tensor

    @property
    def known(self) -> Tensor:
        return torch.arange(ITEMS) < ITEMS - UNKNOWN

    @property
    def old(self) -> OldItems:
        """As the new model is told of it."""
        return OldItems(self.old_items.masked_fill(~self.known.unsqueeze(1), 0), self.known)

    @property
    def paired(self) -> Paired:
        return Paired(self.old_items[self.known], self.new_items[self.known])


def plant(d_new: int, seed: int = 0) -> Planted:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width = max(D_OLD, d_new)
    turn = rotation_of(draw(width, width))
    truth = F.normalize(draw(ITEMS, width), dim=1)
    targets = torch.randint(ITEMS - UNKNOWN, (QUERIES,), generator=generator)
    wanted = F.normalize(truth[targets] + 0.12 * draw(QUERIES, width), dim=1)
    old, asked = truth[:, :D_OLD], wanted[:, :D_OLD]  # the old model knows less where d_new > d_old
    noise = 0.02
    return Planted(
        F.normalize(old + noise * draw(*old.shape), dim=1),
        F.normalize(truth @ turn + noise * draw(*truth.shape), dim=1)[:, :d_new],
        F.normalize(asked + noise * draw(*asked.shape), dim=1),
        F.normalize(wanted @ turn + noise * draw(*wanted.shape), dim=1)[:, :d_new],
        targets,
    )


class Towers(nn.Module):
    """A model that has all of the planted new one to begin with, and learns on."""

    def __init__(self, planted: Planted) -> None:
        super().__init__()
        width = planted.new_items.shape[1]
        self.user = nn.Linear(width, width, bias=False)
        self.items = nn.Parameter(planted.new_items.clone())
        nn.init.eye_(self.user.weight)

    def queries(self, vectors: Tensor) -> Tensor:
        return F.normalize(self.user(vectors), dim=1)


def own_loss(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Softmax over all items at temperature 0.1."""
    queries, positives, negatives = (F.normalize(v, dim=1) for v in (queries, positives, negatives))
    return torch.logsumexp(queries @ negatives.T / 0.1, 1) - (queries * positives).sum(1) / 0.1


@dataclass
class Upgraded:
    """A bridge, and the new model's own vectors beyond it."""

    bridge: Bridge
    items: Tensor
    queries: Tensor


def upgrade(config: Kind, planted: Planted, steps: int = 60) -> Upgraded:
    """What a method makes of the planted models; half of the queries are learned from."""
    method = method_of(config)
    if issubclass(method, Fitted):
        bridge = method.fit(config, planted.paired)
        return Upgraded(bridge, planted.new_items, planted.new_queries)
    towers = Towers(planted)
    learnt: Learnt = method.make(config, planted.old, planted.new_items.shape[1])
    optimizer = torch.optim.Adam(
        [
            {"params": towers.parameters(), "lr": 0.002},  # they know it all to begin with
            {"params": learnt.parameters(), "lr": 0.02},
        ]
    )
    half, rows = slice(0, QUERIES // 2), torch.arange(ITEMS)
    for _ in range(steps):
        queries = towers.queries(planted.new_queries[half])
        items = F.normalize(towers.items, dim=1)
        targets = planted.targets[half]
        loss = learnt.losses(own_loss, queries, items[targets], items, targets, rows).mean()
        if learnt.asks_users:
            loss = loss + learnt.users(queries, planted.old_queries[half])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        known, raw = planted.known, F.normalize(towers.items, dim=1)
        settled = learnt.settled(Paired(planted.old_items[known], raw[known]))
        items = settled.own_items(raw)
        return Upgraded(settled, items, settled.own_queries(towers.queries(planted.new_queries)))


def recall(queries: Tensor, items: Tensor, targets: Tensor, k: int = 10) -> float:
    """Share of the queries that were not learned from whose item is among the k best."""
    judged = slice(QUERIES // 2, None)
    best = (queries @ items.T).topk(k).indices[judged]
    return float((best == targets[judged].unsqueeze(1)).any(1).float().mean())


def direct(planted: Planted) -> float:
    """Recall of new queries that ask the old index as they are."""
    width = max(D_OLD, planted.new_items.shape[1])
    return recall(
        wider(planted.new_queries, width), wider(planted.old_items, width), planted.targets
    )
