"""Users as mixtures over clusters of items (El-Kishky et al., "kNN-Embed", 2022).

U users, N items, D width, C clusters, M clusters that are kept of a user, K neighbours,
P pairs of a user and a cluster that holds items of the user's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.lists.pairs import Pairs
from recsys.lists.search import search
from recsys.lists.top_k import stable_top_k

_USERS = 1024  # at a time: their neighbours' pairs are held at once
_ROWS = 4096  # at a time, when they are compared with all centres
_ITERATIONS = 25


class Mixtures(NamedTuple):
    """Of every user the heaviest clusters first: vectors [U, M, D], weights [U, M] that sum to 1.

    A weight of 0 is no cluster, and its vector is 0.
    """

    vectors: Tensor
    weights: Tensor


def spherical_clusters(vectors: Tensor, trained: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """A cluster [N] for each of `vectors` [N, D], by direction alone.

    The centres are those of spherical k-means (Dhillon & Modha, 2001) over the rows [n] that are
    `trained`; there are at most n.
    """
    import faiss  # it takes a while to import, and other retrievers need it not

    units = F.normalize(vectors, dim=1)
    sample = units[trained].numpy()
    count = min(clusters, len(sample))
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
    )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # several add up in any order
    means.train(sample)
    faiss.omp_set_num_threads(threads)
    centres = torch.from_numpy(means.centroids).T
    return torch.cat([(rows @ centres).argmax(1) for rows in units.split(_ROWS)])


def nearest_users(vectors: Tensor, known: Tensor, count: int) -> Tensor:
    """The `count` users [U, K] whose `vectors` [U, D] are closest by cosine, without oneself.

    Only `known` users [U] are anyone's neighbours, or have any; -1 where there are none.
    """
    rows = known.nonzero().squeeze(1)
    units = F.normalize(vectors[rows], dim=1)
    itself = torch.arange(len(rows))
    queries, weights = units.unsqueeze(1), torch.ones(len(rows), 1)
    _, indices = search(queries, weights, units, count, Pairs(itself, itself))
    nearest = torch.full((len(vectors), indices.shape[1]), -1)
    nearest[rows] = rows[indices.clamp(min=0)].masked_fill(indices < 0, -1)
    return nearest


def mixtures_of(
    seen: sp.csr_array,
    items: Tensor,
    clusters: Tensor,
    keep: int,
    mixing_weight: float = 1.0,
    nearest: Tensor | None = None,
) -> Mixtures:
    """The `keep` heaviest clusters of every user, smoothed with those of the nearest users.

    With `p(c|u)` the share of u's items in c, `mu(c, u)` their mean, and lambda `mixing_weight`:
    `p_s(c|u) = lambda p(c|u) + (1 - lambda) mean_v p(c|v)` over all neighbours v, and
    `mu_s(c, u) = lambda mu(c, u) + (1 - lambda) mean_v mu(c, v)` over those with items in c; the
    one mean alone where the other has no items.

    Args:
        seen: [U, N], 1 where a user has had an item.
        items: vectors [N, D].
        clusters: of the items [N].
        nearest: [U, K], -1 for none; without them nothing is smoothed.
    """
    pairs = _Pairs.of(seen, clusters.numpy())
    numpy = items.numpy()
    chunks = []
    for first in range(0, seen.shape[0], _USERS):
        users = np.arange(first, min(first + _USERS, seen.shape[0]))
        near = None if nearest is None else nearest[first : first + _USERS].numpy()
        chunks.append(_mix(pairs, numpy, users, near, keep, mixing_weight))
    vectors, weights = (torch.cat(tensors) for tensors in zip(*chunks, strict=True))
    return Mixtures(vectors, weights)


class _Pairs(NamedTuple):
    """Pairs of users and clusters: their `numbers` [U, C], counted from 1, the shares of the
    users' items in them [U, C], and the means that make their centroids [P, N]."""

    numbers: sp.csr_array
    shares: sp.csr_array
    means: sp.csr_array

    @classmethod
    def of(cls, seen: sp.csr_array, clusters: np.ndarray) -> _Pairs:
        """From who had what [U, N] and the items' clusters [N]."""
        count = int(clusters.max(initial=0)) + 1
        users = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
        keys, pair, sizes = np.unique(
            users * count + clusters[seen.indices], return_inverse=True, return_counts=True
        )
        rows, columns = keys // count, keys % count
        of_user = np.bincount(users, minlength=seen.shape[0])
        means = (1 / sizes[pair]).astype(np.float32)
        shape = seen.shape[0], count
        return cls(
            sp.csr_array((np.arange(1, len(keys) + 1), (rows, columns)), shape=shape),
            sp.csr_array(
                ((sizes / of_user[rows]).astype(np.float32), (rows, columns)), shape=shape
            ),
            sp.csr_array((means, (pair, seen.indices)), shape=(len(keys), seen.shape[1])),
        )


def _mix(
    pairs: _Pairs,
    items: np.ndarray,
    users: np.ndarray,
    nearest: np.ndarray | None,
    keep: int,
    mixing_weight: float,
) -> tuple[Tensor, Tensor]:
    """Vectors [B, M, D] and weights [B, M] of some users with neighbours [B, K]."""
    shares = pairs.shares[users]
    if nearest is not None:
        shares = mixing_weight * shares + (1 - mixing_weight) * (
            _averages(nearest, pairs) @ pairs.shares
        )
    weights, chosen = stable_top_k(torch.from_numpy(shares.toarray()), keep)
    numbers = pairs.numbers[users].toarray()
    own, has_own = _centroids(pairs, items, np.take_along_axis(numbers, chosen.numpy(), 1).ravel())
    vectors = own
    if nearest is not None:
        theirs, has_theirs = _centroids_of_neighbours(pairs, items, nearest, chosen.numpy())
        both = mixing_weight * own + np.float32(1 - mixing_weight) * theirs
        either = np.where(has_own[:, None], own, theirs)
        vectors = np.where((has_own & has_theirs)[:, None], both, either)
    missing = keep - chosen.shape[1]  # there are fewer clusters than that
    mixed = torch.from_numpy(vectors.astype(np.float32)).unflatten(0, chosen.shape)
    mixed = mixed * (weights > 0).unsqueeze(2)
    total = weights.sum(1, keepdim=True)
    weights = weights / total.where(total > 0, 1.0)
    return F.pad(mixed, (0, 0, 0, missing)), F.pad(weights, (0, missing))


def _averages(nearest: np.ndarray, pairs: _Pairs) -> sp.csr_array:
    """[B, U]: each row is the mean over a user's neighbours."""
    rows, columns = (nearest >= 0).nonzero()
    shares = (1 / (nearest >= 0).sum(1).clip(min=1)).astype(np.float32)
    shape = len(nearest), pairs.shares.shape[0]
    return sp.csr_array((shares[rows], (rows, nearest[rows, columns])), shape=shape)


def _centroids(
    pairs: _Pairs, items: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids [S, D] of the pairs with `numbers` [S], 0 for none, and where there is one."""
    there = numbers > 0
    centroids = np.zeros((len(numbers), items.shape[1]), np.float32)
    centroids[there] = pairs.means[numbers[there] - 1] @ items
    return centroids, there


def _centroids_of_neighbours(
    pairs: _Pairs, items: np.ndarray, nearest: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean [S, D] of neighbours' centroids for each of S = B M clusters `chosen` [B, M], and
    whether any neighbour has one."""
    slots = np.full((len(chosen), pairs.numbers.shape[1]), -1)
    np.put_along_axis(slots, chosen, np.arange(chosen.size).reshape(chosen.shape), 1)
    users, columns = (nearest >= 0).nonzero()
    near = pairs.numbers[nearest[users, columns]].tocoo()
    slot = slots[users[near.row], near.col]
    kept = slot >= 0
    shape = chosen.size, pairs.means.shape[0]
    counts = np.bincount(slot[kept], minlength=chosen.size)
    shares = (1 / counts[slot[kept]]).astype(np.float32)
    means = sp.csr_array((shares, (slot[kept], near.data[kept] - 1)), shape=shape)
    return (means @ pairs.means) @ items, counts > 0
