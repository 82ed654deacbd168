"""Propagation against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.layers.propagation import Bipartite, LightGCN, Sheaf, SheafLayer, product

WIDTH = 5


def graph_of(users: int, items: int, density: float, seed: int) -> tuple[Bipartite, Tensor]:
    """A random graph and its matrix [U, N]; some users and items have no edges."""
    dense = np.random.default_rng(seed).random((users, items)) < density
    dense[0, :] = dense[:, 0] = False
    matrix = sp.csr_array(dense.astype(np.float32))
    return Bipartite(matrix), torch.from_numpy(dense.astype(np.float32))


def vectors_of(users: int, items: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(users, WIDTH, generator=generator)
    y = torch.randn(items, WIDTH, generator=generator)
    return x.requires_grad_(), y.requires_grad_()


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum in which no two outputs weigh alike."""
    flat = torch.cat([out.flatten() for out in outputs])
    weights = torch.randn(len(flat), generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((flat * weights).sum(), inputs)


def adjacency(matrix: Tensor) -> Tensor:
    """[U + N, U + N]."""
    users, items = matrix.shape
    above = torch.cat([torch.zeros(users, users), matrix], 1)
    return torch.cat([above, torch.cat([matrix.T, torch.zeros(items, items)], 1)])


SHAPES = given(
    users=st.integers(1, 9),
    items=st.integers(1, 9),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)


@SHAPES
def test_both_products_and_their_gradients(
    users: int, items: int, density: float, seed: int
) -> None:
    graph, matrix = graph_of(users, items, density, seed)
    x, y = vectors_of(users, items, seed)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(graph.items), generator=generator, requires_grad=True)
    dense = torch.zeros_like(matrix).index_put((graph.users.long(), graph.items.long()), values)
    expected, found = (dense @ y, dense.T @ x), product(graph, values, x, y)
    torch.testing.assert_close(found, expected)
    inputs = [values, x, y]
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs))


@SHAPES
def test_lightgcn_is_the_mean_of_powers(users: int, items: int, density: float, seed: int) -> None:
    graph, matrix = graph_of(users, items, density, seed)
    x, y = vectors_of(users, items, seed)
    joined = adjacency(matrix)
    root = joined.sum(1).clamp(min=1).rsqrt()
    operator = root[:, None] * joined * root
    layers = [torch.cat([x, y])]
    for _ in range(3):
        layers.append(operator @ layers[-1])
    expected = torch.stack(layers).mean(0).split([users, items])
    found = LightGCN(graph, 3)(graph, x, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, [x, y]), gradients(expected, [x, y]))


def dense_sheaf(layer: SheafLayer, joined: Tensor, x: Tensor) -> Tensor:
    """X [U + N, D] after the layer, by the definition of its Laplacian."""
    start, end = layer.maps.weight
    maps = torch.tanh((x @ start)[:, None] + (x @ end)) * joined
    degrees = maps.square().sum(1)
    root = (degrees + 1).rsqrt()
    laplacian = torch.diag(degrees) - maps * maps.T
    laplacian = root[:, None] * laplacian * root
    return x - layer.step * laplacian @ (x @ layer.linear.weight.T + layer.linear.bias)


@SHAPES
def test_the_sheaf_layer_is_its_laplacian(
    users: int, items: int, density: float, seed: int
) -> None:
    graph, matrix = graph_of(users, items, density, seed)
    x, y = vectors_of(users, items, seed)
    torch.manual_seed(seed)
    layer = SheafLayer(WIDTH, step=0.7)
    expected = dense_sheaf(layer, adjacency(matrix), torch.cat([x, y])).split([users, items])
    found = layer(graph, x, y)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    inputs = [x, y, *layer.parameters()]
    torch.testing.assert_close(
        gradients(found, inputs), gradients(expected, inputs), atol=1e-4, rtol=1e-4
    )


def test_sheaf_layers_are_concatenated() -> None:
    graph, _ = graph_of(6, 7, 0.5, 0)
    x, y = vectors_of(6, 7)
    sheaf = Sheaf(WIDTH, 2)
    users, items = sheaf(graph, x, y)
    assert users.shape == (6, 3 * WIDTH) and items.shape == (7, 3 * WIDTH)
    once = sheaf.layers[0](graph, x, y)
    torch.testing.assert_close(users[:, : 2 * WIDTH], torch.cat([x, once[0]], 1))
    torch.testing.assert_close(items[:, 2 * WIDTH :], sheaf.layers[1](graph, *once)[1])


def test_a_pair_that_comes_twice_is_one_edge() -> None:
    graph = Bipartite(sp.coo_array((np.ones(3), ([1, 1, 0], [2, 2, 1])), shape=(2, 3)))
    assert graph.users.tolist() == [0, 1] and graph.items.tolist() == [1, 2]
    assert [d.tolist() for d in graph.degrees] == [[1, 1], [0, 1, 1]]


@pytest.mark.parametrize("chosen", [[1, 3], [0], [0, 4, 2, 2]])
def test_items_of_users(chosen: list[int]) -> None:
    graph, matrix = graph_of(5, 8, 0.5, 3)
    found = graph.items_of(torch.tensor(chosen))
    for user, row in zip(chosen, found.tolist(), strict=True):
        assert [item for item in row if item] == matrix[user].nonzero().flatten().tolist()
