"""Interests: a user's events -> several vectors, one for each thing that the user is after.

B users, K interests, T positions, D width. Events [B, T, D] come newest first and `mask` [B, T]
says where they are: a position means the same whatever the length, and padding lies behind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

_SMALLEST = 1e-9
_SHARPNESS = 3.0  # of HCN's attention: of the competition at first
# How decided routing starts out: events are unit vectors, and their agreement is small without it.
_MIND_DECIDED, _DR_DECIDED = 8.0, 16.0


class Interests(NamedTuple):
    """Vectors [B, K, D], and which of them the user has [B, K]."""

    vectors: Tensor
    present: Tensor


class Extractor(nn.Module, ABC):
    """Finds `interests` vectors of `width` in at most `length` events."""

    def __init__(self, width: int, interests: int, length: int) -> None:
        super().__init__()
        self.width = width
        self.interests = interests
        self.length = length

    @abstractmethod
    def forward(self, events: Tensor, mask: Tensor) -> Interests:
        """[B, T, D] and [B, T] -> [B, K, D] and [B, K]."""


class FeedForward(nn.Module):
    """`x + W2 relu(W1 x + b1) + b2`: what it makes starts out near what it gets."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return x + self.outer(torch.relu(self.inner(x)))


class MeanPooling(Extractor):
    """One vector: a feed-forward network of the mean, added to it. Covington et al., RecSys 2016,
    without their other features."""

    def __init__(self, width: int, interests: int, length: int) -> None:
        super().__init__(width, 1, length)
        self.feed = FeedForward(width)

    def forward(self, events: Tensor, mask: Tensor) -> Interests:
        """As `Extractor.forward`, with K = 1."""
        weights = mask.to(events.dtype).unsqueeze(2)
        mean = (events * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)
        return _everyone_has(self.feed(mean))


class MIND(Extractor):
    """Dynamic routing with one bilinear map S that all interests share (B2I), and a number of
    interests that grows with the history. Li et al., "Multi-interest network with dynamic
    routing", CIKM 2019.

    `w = softmax_k(b)`, `u_k = squash(sum_i w_ik S e_i)`, `b_ik += u_k . S e_i`. As S is shared, b
    must not start alike for all k: it is drawn from N(0, 1) once, for each position and interest,
    so that a user gets the same answer whenever and wherever it is asked for. User u has
    `max(1, min(K, floor(log2 |I_u|)))` interests, `|I_u|` events read. Gradients pass through the
    last iteration alone. The layers behind the routing are a `FeedForward`, there being no profile
    to join.
    """

    start: Tensor
    least: Tensor

    def __init__(self, width: int, interests: int, length: int, iterations: int = 3) -> None:
        super().__init__(width, interests, length)
        self.iterations = iterations
        self.map = nn.Linear(width, width, bias=False)
        with torch.no_grad():  # events vote for what they are like
            self.map.weight.copy_(_MIND_DECIDED * torch.eye(width))
        self.feed = FeedForward(width)
        self.register_buffer("start", torch.randn(length, interests))  # weights go with it
        least = [0, *(2 ** (k + 1) for k in range(1, interests))]
        self.register_buffer("least", torch.tensor(least), persistent=False)

    def forward(self, events: Tensor, mask: Tensor) -> Interests:
        """As `Extractor.forward`."""
        present = mask.sum(1, keepdim=True) >= self.least
        votes = self.map(events).unsqueeze(2)  # [B, T, 1, D]: the same for all interests
        logits = self.start[: events.shape[1]].unsqueeze(0)
        capsules = route(votes, logits, mask, present, self.iterations)
        return Interests(self.feed(capsules), present)


class ComiRecDR(Extractor):
    """Dynamic routing with a map for every position and interest. Cen et al., "Controllable
    multi-interest framework", KDD 2020, algorithm 1.

    `c = softmax_k(b)`, `v_k = squash(sum_i c_ik W_ik e_i)`, `b_ik += v_k . W_ik e_i`, b = 0 at
    first. Gradients pass through the last iteration alone. A map is the sum of one that all
    positions share, and learn together, and of its own, which learns slowly.
    """

    OWN = 0.1

    def __init__(self, width: int, interests: int, length: int, iterations: int = 3) -> None:
        super().__init__(width, interests, length)
        self.iterations = iterations
        apart = torch.randn(interests, width, width) * 0.5 * width**-0.5
        self.shared = nn.Parameter(_DR_DECIDED * (torch.eye(width) + apart))
        self.own = nn.Parameter(torch.zeros(length, interests, width, width))

    @property
    def maps(self) -> Tensor:
        """W [T, K, D, D]."""
        return self.shared + self.OWN * self.own

    def forward(self, events: Tensor, mask: Tensor) -> Interests:
        """As `Extractor.forward`."""
        votes = torch.einsum("btd,tkde->btke", events, self.maps[: events.shape[1]])
        present = _all(events, self.interests)
        logits = votes.new_zeros(1, 1, self.interests)
        return Interests(route(votes, logits, mask, present, self.iterations), present)


class ComiRecSA(Extractor):
    """Self-attention: `V_k = sum_i a_ik e_i`, `a = softmax_i(W2 tanh(W1 (e_i + p_i)))`. Cen et al.,
    KDD 2020; positions p go into the attention alone, as in their released code.
    """

    def __init__(self, width: int, interests: int, length: int) -> None:
        super().__init__(width, interests, length)
        self.positions = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.positions, std=width**-0.5)
        self.hidden = nn.Linear(width, 4 * width, bias=False)
        self.attention = nn.Linear(4 * width, interests, bias=False)

    def forward(self, events: Tensor, mask: Tensor) -> Interests:
        """As `Extractor.forward`."""
        placed = events + self.positions[: events.shape[1]]
        logits = self.attention(torch.tanh(self.hidden(placed)))  # [B, T, K]
        lowest = torch.finfo(logits.dtype).min
        weights = logits.masked_fill(~mask.unsqueeze(2), lowest).softmax(1)
        return _everyone_has(torch.einsum("btk,btd->bkd", weights * mask.unsqueeze(2), events))


class HCN(Extractor):
    """Interest centres refined level by level, in the whole history and in its newest events, and
    brought together by co-attention. Idea: Yuan et al., "Hierarchical multi-interest co-network
    for coarse-grained ranking", arXiv 2210.10547, 2022.

    The paper's equations are not public: this is a reading of its abstract, and what follows is
    ours. Events H are as long as sqrt(D); the first centres C are learned, and the same for both
    histories, so that interest k means the same in both. Each level lets centres compete for
    events, as slot attention does (Locatello et al., NeurIPS 2020), which keeps them apart:

        A = softmax_k(LN(C) H^T / sqrt(D)), A_ki := A_ki / sum_i A_ki, C := A H

    LN(C + A H) or C + A H instead keep what all users share, and found less in trials.

    With L of the whole history and S of its newest `short_length` events:

        S' = S + softmax(3 S L^T / sqrt(D)) L,  L' = L + softmax(3 L S^T / sqrt(D)) S
        g = sigmoid(W [S'; L'] + b),  V = g * S' + (1 - g) * L'
    """

    def __init__(
        self, width: int, interests: int, length: int, short_length: int = 10, levels: int = 3
    ) -> None:
        super().__init__(width, interests, length)
        self.short_length = short_length
        self.centres = nn.Parameter(torch.empty(interests, width))
        nn.init.orthogonal_(self.centres)  # short, so that events outweigh them
        self.query_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(levels))
        for norm in self.query_norms:
            nn.init.constant_(norm.weight, _SHARPNESS)  # type: ignore[arg-type]
        self.gate = nn.Linear(2 * width, width)

    def forward(self, events: Tensor, mask: Tensor) -> Interests:
        """As `Extractor.forward`."""
        scaled = math.sqrt(self.width) * nn.functional.normalize(events, dim=2)
        newest = torch.arange(events.shape[1], device=mask.device) < self.short_length
        both = self.refine(scaled, torch.stack([mask, mask & newest], dim=1))
        attended = _attend(both, both.flip(1))
        longer, shorter = attended.unbind(1)
        gate = torch.sigmoid(self.gate(torch.cat([shorter, longer], dim=2)))
        return _everyone_has(torch.lerp(longer, shorter, gate))

    def refine(self, events: Tensor, masks: Tensor) -> Tensor:
        """Centres [B, H, K, D] after the last level, of H histories: `masks` [B, H, T] say which of
        the same events they hold."""
        centres = self.centres.expand(*masks.shape[:2], -1, -1)
        for norm in self.query_norms:
            queries = (norm(centres) / math.sqrt(self.width)).flatten(1, 2)  # [B, H K, D]
            logits = (queries @ events.transpose(1, 2)).unflatten(1, centres.shape[1:3])
            shares = logits.softmax(2) * masks.unsqueeze(2)  # [B, H, K, T]
            shares = shares / shares.sum(3, keepdim=True).clamp(min=_SMALLEST)
            centres = (shares.flatten(1, 2) @ events).view_as(centres)
        return centres


def route(votes: Tensor, logits: Tensor, mask: Tensor, present: Tensor, iterations: int) -> Tensor:
    """Capsules [B, K, D] by dynamic routing (Sabour et al., NeurIPS 2017).

    Args:
        votes: what each event says of each interest [B, T, K or 1, D].
        logits: where routing starts, broadcast to [B, T, K].
        mask: [B, T].
        present: [B, K]; an interest that is not gets no vote, and is 0.
    """
    fixed = votes.detach()
    for _ in range(iterations - 1):
        capsules = _capsules(fixed, logits, mask, present)
        logits = logits + (fixed * capsules.unsqueeze(1)).sum(3)
    return _capsules(votes, logits, mask, present)


def _capsules(votes: Tensor, logits: Tensor, mask: Tensor, present: Tensor) -> Tensor:
    lowest = torch.finfo(logits.dtype).min
    shares = logits.masked_fill(~present.unsqueeze(1), lowest).softmax(2)
    shares = shares * (mask.unsqueeze(2) & present.unsqueeze(1))
    if votes.shape[2] == 1:
        return squash(torch.einsum("btk,btd->bkd", shares, votes.squeeze(2)))
    return squash(torch.einsum("btk,btkd->bkd", shares, votes))


def squash(x: Tensor) -> Tensor:
    """`|x|^2 / (1 + |x|^2) * x / |x|` [..., D]: as long as 1 at most; 0 stays 0."""
    square = x.square().sum(-1, keepdim=True)
    return square / (1 + square) * x / (square + _SMALLEST).sqrt()


def newest_first(lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Where the events before `lengths` [B] lie, from the last one back, and whether they are
    there; [B, T] each."""
    ago = torch.arange(width, device=lengths.device)
    positions = lengths.unsqueeze(1) - 1 - ago
    return positions.clamp(min=0), positions >= 0


def nearest(vectors: Tensor, present: Tensor, events: Tensor) -> Tensor:
    """Which interest each event is closest to [B, T], by the inner product."""
    scores = torch.einsum("btd,bkd->btk", events, vectors)
    return scores.masked_fill(~present.unsqueeze(1), float("-inf")).argmax(2)


def _attend(queries: Tensor, values: Tensor) -> Tensor:
    """`Q + softmax(3 Q V^T / sqrt(D)) V` of [..., K, D] each."""
    agreement = queries @ values.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    weights = (_SHARPNESS * agreement).softmax(-1)
    return queries + weights @ values


def _all(events: Tensor, interests: int) -> Tensor:
    """Presence [B, K] of all."""
    return events.new_ones(events.shape[0], interests, dtype=torch.bool)


def _everyone_has(vectors: Tensor) -> Interests:
    return Interests(vectors, _all(vectors, vectors.shape[1]))
