"""How interests lie to each other and to known clusters, by hand."""

from __future__ import annotations

import numpy as np
import torch

from recsys.evaluation.interests import matched_purity, redundancy


def test_redundancy_is_the_mean_cosine_of_pairs() -> None:
    """Of vectors of any length, and of those alone that the user has."""
    vectors = torch.tensor(
        [
            [[2.0, 0], [0, 3], [1, 1]],  # cosines 0, 1 / sqrt 2 twice
            [[5.0, 0], [3, 4], [-9, 9]],  # the last is not there
            [[1.0, 0], [-4, 0], [2, 2]],  # the last is not there
            [[1.0, 0], [2, 2], [3, 3]],  # nor two of these
            [[1.0, 0], [2, 2], [3, 3]],
        ]
    )
    lengths = torch.tensor([3, 2, 2, 1, 0])
    present = torch.arange(3) < lengths.unsqueeze(1)
    found = redundancy(vectors, present)
    assert found.dtype == torch.float64  # differences of nearly equal sums
    expected = [2**0.5 / 3, 0.6, -1.0, torch.nan, torch.nan]
    torch.testing.assert_close(found, torch.tensor(expected).double(), equal_nan=True)


def test_purity_matches_interests_to_clusters_one_to_one() -> None:
    known = np.array([[0, 0, 0, 1, 1, -1], [0, 0, 1, 1, 2, 2], [-1] * 6, [-1, 3, -1, -1, -1, -1]])
    found = np.array([[2, 2, 0, 0, 0, 9], [0] * 6, [0] * 6, [1, 0, 1, 1, 1, 1]])
    np.testing.assert_allclose(matched_purity(found, known), [0.8, 1 / 3, np.nan, 1.0])


def test_purity_takes_the_matching_that_is_best_for_all() -> None:
    """Each interest has cluster 0 most of all, and the second nothing else."""
    known = np.array([[0, 0, 0, 1, 1, 0, 0, 0]])
    found = np.array([[0, 0, 0, 0, 0, 1, 1, 1]])
    np.testing.assert_allclose(matched_purity(found, known), [5 / 8])
