"""Propagation over a bipartite graph. U users, N items, E edges, D width.

The products are bags of rows, weighted and added up: see `recsys.layers.sparse_linear`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bipartite(nn.Module):
    """Edges between users and items, ordered by user and, for the way back, by item.

    By user: `items` [E], `users` [E], and where a user's edges begin, `user_starts` [U + 1]. By
    item: `users_by_item` [E], `item_starts` [N + 1], and `edges_by_item` [E], which count by user.
    """

    items: Tensor
    users: Tensor
    user_starts: Tensor
    users_by_item: Tensor
    item_starts: Tensor
    edges_by_item: Tensor

    def __init__(self, matrix: sp.sparray | sp.spmatrix) -> None:
        """An edge for every stored value of `matrix` [U, N]."""
        super().__init__()
        by_user = sp.csr_array(matrix)
        by_user.sum_duplicates()
        edges = np.arange(by_user.nnz, dtype=np.int32)
        numbered = (edges, by_user.indices, by_user.indptr)
        by_item = sp.csr_array(numbered, shape=by_user.shape).tocsc()
        users = np.repeat(np.arange(by_user.shape[0]), np.diff(by_user.indptr))
        for name, array in {
            "items": by_user.indices,
            "users": users,
            "user_starts": by_user.indptr,
            "users_by_item": by_item.indices,
            "item_starts": by_item.indptr,
            "edges_by_item": by_item.data,
        }.items():
            self.register_buffer(name, torch.from_numpy(array.astype(np.int32)), persistent=False)

    @property
    def degrees(self) -> tuple[Tensor, Tensor]:
        """Edges of every user [U] and item [N]."""
        return self.user_starts.diff(), self.item_starts.diff()

    def edges_of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The edges of users [B]: each one's place in `users`, ascending, and its item."""
        starts, counts = self.user_starts[users].long(), self.degrees[0][users]
        places = torch.arange(len(users), device=users.device).repeat_interleave(counts)
        before = (starts - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        return places, self.items[before + torch.arange(len(places), device=users.device)].long()

    def items_of(self, users: Tensor) -> Tensor:
        """The items of users [B], padded with 0 behind: [B, most edges of one of them]."""
        starts, counts = self.user_starts[users], self.degrees[0][users]
        columns = torch.arange(max(1, int(counts.max())), device=users.device)
        there = columns < counts.unsqueeze(1)
        edges = (starts.unsqueeze(1) + columns).masked_fill(~there, 0)
        return self.items[edges].long().masked_fill(~there, 0)


def product(
    graph: Bipartite, values: Tensor, users: Tensor, items: Tensor, by_item: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(S y, S^T x) for x [U, D] of users and y [N, D] of items, S [U, N] with `values` [E] by user.

    `by_item` may bring the values in the order by item, where they are known already.
    """
    if by_item is None:
        by_item = values.detach().index_select(0, graph.edges_by_item)
    return _Product.apply(graph, values.float(), by_item, users.float(), items.float())  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """Both directions at once, since one is the other's gradient: [0 S; S^T 0] is symmetric."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, graph: Bipartite, values: Tensor, by_item: Tensor, users: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors are kept only where values have gradients."""
        ctx.graph = graph
        learnt = ctx.needs_input_grad[1]
        ctx.save_for_backward(values, by_item, *((users, items) if learnt else ()))
        return _multiply(graph, values, by_item, users, items)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The same product of the gradients; of a value, inner products of its edge's ends."""
        values, by_item, *vectors = ctx.saved_tensors
        of_users, of_items = (grad.contiguous() for grad in grads)
        of_values = None
        if vectors:
            users, items = vectors
            left = torch.cat([of_users, users], dim=1)
            right = torch.cat([items, of_items], dim=1)
            of_values = _inner_products(ctx.graph, left, right)
        return None, of_values, None, *_multiply(ctx.graph, values, by_item, of_users, of_items)


def _multiply(
    graph: Bipartite, values: Tensor, by_item: Tensor, users: Tensor, items: Tensor
) -> tuple[Tensor, Tensor]:
    return (
        _weighted_sums(items, graph.items, graph.user_starts, values),
        _weighted_sums(users, graph.users_by_item, graph.item_starts, by_item),
    )


def _weighted_sums(vectors: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(
        rows,
        vectors.detach(),  # or torch would make ready for its own backward pass
        starts,
        mode="sum",
        per_sample_weights=weights.detach(),
        include_last_offset=True,
    )


def _inner_products(graph: Bipartite, users: Tensor, items: Tensor) -> Tensor:
    """Of the ends of every edge [E]."""
    with warnings.catch_warnings():  # torch calls its sparse tensors a beta
        warnings.simplefilter("ignore")
        zeros = torch.sparse_csr_tensor(
            graph.user_starts,
            graph.items,
            users.new_zeros(len(graph.items)),
            size=(len(users), len(items)),
        )
        return torch.sparse.sampled_addmm(zeros, users, items.T, beta=0.0).values()


class Unpropagated(nn.Module):
    """What goes in comes out."""

    def forward(self, graph: Bipartite, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """[U, D] and [N, D] -> the same."""
        return users, items


class LightGCN(nn.Module):
    """`E^{l+1} = D^{-1/2} A D^{-1/2} E^l` and the mean of E^0 to E^L (He et al., "LightGCN",
    SIGIR 2020). It has no weights."""

    values: Tensor
    by_item: Tensor

    def __init__(self, graph: Bipartite, layers: int) -> None:
        super().__init__()
        self.layers = layers
        of_users, of_items = (d.clamp(min=1).rsqrt() for d in graph.degrees)
        values = of_users[graph.users] * of_items[graph.items]
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("by_item", values[graph.edges_by_item], persistent=False)

    def forward(self, graph: Bipartite, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """[U, D] and [N, D] -> the same; the sum is nested: `E + A (E + A (E + ...))`."""
        x, y = users, items
        for _ in range(self.layers):
            of_users, of_items = product(graph, self.values, x, y, self.by_item)
            x, y = of_users.add_(users), of_items.add_(items)  # their memory is ours alone
        return x / (self.layers + 1), y / (self.layers + 1)


class SheafLayer(nn.Module):
    """`X - step L (X W^T + b)` with the Laplacian L of a sheaf whose stalks are numbers
    (Purificato et al., "Sheaf4Rec", 2023).

    An edge from r to c has the restriction map `m_rc = tanh(w^T [x_r; x_c])`. With
    `D_r = sum_c m_rc^2`, L is `D_r / (D_r + 1)` on its diagonal and beside it
    `-(D_r + 1)^{-1/2} m_rc m_cr (D_c + 1)^{-1/2}`.
    """

    def __init__(self, width: int, step: float = 1.0) -> None:
        super().__init__()
        self.step = step
        self.maps = nn.Linear(width, 2, bias=False)  # w: of the end an edge starts from, the other
        self.linear = nn.Linear(width, width)

    def forward(self, graph: Bipartite, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """[U, D] and [N, D] -> the same."""
        from_users, to_users = self.maps(users).float().unbind(1)
        from_items, to_items = self.maps(items).float().unbind(1)
        ends = (graph.users, graph.items)
        forth = torch.tanh(_at(from_users, ends[0]) + _at(to_items, ends[1]))
        back = torch.tanh(_at(to_users, ends[0]) + _at(from_items, ends[1]))
        degrees = (
            torch.zeros_like(from_users).index_add(0, ends[0], forth.square()).unsqueeze(1),
            torch.zeros_like(from_items).index_add(0, ends[1], back.square()).unsqueeze(1),
        )
        roots = [(degree + 1).rsqrt() for degree in degrees]
        changed = [self.linear(users), self.linear(items)]
        scaled = [root * z for root, z in zip(roots, changed, strict=True)]
        beside = product(graph, forth * back, *scaled)
        of_users, of_items = (
            degree / (degree + 1) * z - root * of_neighbours
            for degree, z, root, of_neighbours in zip(degrees, changed, roots, beside, strict=True)
        )
        return users - self.step * of_users, items - self.step * of_items


def _at(values: Tensor, rows: Tensor) -> Tensor:
    return values.index_select(0, rows)


class Sheaf(nn.Module):
    """Layers of the sheaf Laplacian; what goes in and what comes out of each is concatenated."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SheafLayer(width) for _ in range(layers))

    def forward(self, graph: Bipartite, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """[U, D] and [N, D] -> [U, (L + 1) D] and [N, (L + 1) D]."""
        outputs = [(users, items)]
        for layer in self.layers:
            outputs.append(layer(graph, *outputs[-1]))
        of_users, of_items = zip(*outputs, strict=True)
        return torch.cat(of_users, dim=1), torch.cat(of_items, dim=1)
