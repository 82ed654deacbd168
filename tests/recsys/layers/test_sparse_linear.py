"""SparseLinear: a sparse matrix product that can be exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.layers.by_parts import PART, by_parts
from recsys.layers.sparse_linear import SparseLinear


def random_matrix(rows: int, columns: int, density: float, seed: int = 0) -> sp.csr_array:
    return sp.random_array(
        (rows, columns), density=density, format="csr", rng=np.random.default_rng(seed)
    )


@given(
    batch=st.integers(1, 5),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_it_is_the_matrix_product(
    batch: int, rows: int, columns: int, density: float, seed: int
) -> None:
    """With empty rows and columns, and where all is empty."""
    matrix = random_matrix(rows, columns, density, seed)
    x = np.random.default_rng(seed).normal(size=(batch, rows)).astype(np.float32)
    y = SparseLinear(matrix)(torch.from_numpy(x))
    np.testing.assert_allclose(y.numpy(), x @ matrix.toarray(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, PART, PART + 1, 3 * PART])
def test_a_batch_may_have_any_size(batch: int) -> None:
    matrix = random_matrix(30, 20, 0.2)
    x = torch.randn(batch, 30, generator=torch.Generator().manual_seed(0))
    y = SparseLinear(matrix)(x)
    assert y.shape == (batch, 20)
    np.testing.assert_allclose(y.numpy(), x.numpy() @ matrix.toarray(), rtol=1e-4, atol=1e-5)


def test_it_comes_back_from_an_export_for_any_batch(tmp_path: Path) -> None:
    layer = SparseLinear(random_matrix(30, 20, 0.2))
    shapes = ({0: torch.export.Dim("requests", min=1, max=1 << 20)},)
    program = torch.export.export(layer, (torch.ones(2, 30),), dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "layer.pt2"))
    exported = torch.export.load(str(tmp_path / "layer.pt2")).module()
    for batch in (1, 3, 2 * PART + 1):
        x = torch.randn(batch, 30, generator=torch.Generator().manual_seed(batch))
        torch.testing.assert_close(exported(x), layer(x))


def test_parts_are_small() -> None:
    seen: list[int] = []

    def function(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return 2 * part

    rows = torch.arange(2 * PART + 3)
    assert torch.equal(by_parts(function, rows), 2 * rows)
    assert seen == [PART, PART, 3]
