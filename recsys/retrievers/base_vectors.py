"""What a finished run's bundle makes of users and items, for models that build on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import HISTORY, HISTORY_TIME
from feature_store.errors import ConfigError, DataError, command
from feature_store.protocols import VALIDATION
from recsys.data.examples import Examples, Interactions
from recsys.serving.generator import Generator
from recsys.serving.recommender import Recommender

_USERS = 4096  # asked for at a time


def vectors_of(
    folder: Path | str, interactions: Interactions, examples: Examples
) -> tuple[Tensor, Tensor]:
    """Vectors [U, D] and [N, D] of the user and item rows of `examples`.

    Users are asked for with nothing but `interactions` as their histories; users without any, and
    items that the run has no vectors of, have the vector 0.

    Raises ConfigError where the run has another split, has learned what is held out here, or has
    no single vector for each of them.
    """
    recommender = _open(Path(folder), examples)
    items = _items(recommender.generator, folder, examples)
    ids = examples.vocabulary(examples.schema.user)
    users = torch.zeros(len(ids), items.shape[1])
    order = torch.argsort(interactions.users, stable=True)
    rows, counts = interactions.users[order].unique_consecutive(return_counts=True)
    starts = np.concatenate([[0], counts.cumsum(0).numpy()])
    vocabulary = examples.vocabulary(examples.schema.item)
    known = recommender.bundle.users
    features = recommender.bundle.schema.of_side("user")
    names = [feature.name for feature in features if feature.name in known.column_names]
    for first in range(0, len(rows), _USERS):
        chunk = slice(first, first + _USERS)
        ends = starts[first : first + _USERS + 1]
        events = order[ends[0] : ends[-1]]
        offsets = pa.array(ends - ends[0], pa.int32())
        raw = ids.decode(rows[chunk].numpy())
        history = vocabulary.decode(interactions.items[events].numpy())
        times = pa.array(interactions.times[events].numpy())
        requests = known.of(raw, names)
        requests = requests.set_column(names.index(examples.schema.user), examples.schema.user, raw)
        for name, values in ((HISTORY, history), (HISTORY_TIME, times)):
            requests = requests.append_column(name, pa.ListArray.from_arrays(offsets, values))
        vectors = recommender.generator.queries(recommender.encode(requests)[0]).vectors
        if vectors.shape[1] != 1:
            raise ConfigError(
                f"{folder} has {vectors.shape[1]} vectors a user: choose a run whose retriever has "
                "one"
            )
        users[rows[chunk]] = vectors.squeeze(1)
    return users, items


def item_vectors_of(folder: Path | str, examples: Examples) -> Tensor:
    """The vectors [N, D] alone; raises as `vectors_of`."""
    return _items(_open(Path(folder), examples).generator, folder, examples)


def _open(run: Path, examples: Examples) -> Recommender:
    bundle = run / "bundle"
    if not bundle.exists():
        raise DataError(f"{run} has no bundle: run `{command('recsys', 'export', run)}`")
    recommender = Recommender.open(bundle)
    record = recommender.generator.record
    if VALIDATION in record.train_roles and VALIDATION not in examples.summary.train_roles:
        raise ConfigError(
            f"{run} has trained on validation events, too, which are held out here: set "
            "trainer.refit = true as there, or choose a run without it"
        )
    if record.protocol_fingerprint != examples.summary.fingerprint:
        raise ConfigError(
            f"{run} was trained on another log or split: events that are tested here may be "
            "among its training events; give it the same [data] and [split]"
        )
    return recommender


def _items(generator: Generator, folder: Path | str, examples: Examples) -> Tensor:
    if generator.items.dim() != 2:
        raise ConfigError(
            f"{folder} is a run of {generator.record.about.model}, which scores all items without "
            "vectors: choose a run whose retriever has vectors"
        )
    rows = examples.vocabulary(examples.schema.item).encode(generator.item_ids)
    items = torch.zeros(examples.num_items, generator.items.shape[1])
    items[torch.from_numpy(rows)] = generator.items
    items[0] = 0  # of ids that are not known here
    return items
