"""A retriever and the bundle in service -> a retriever that asks its index."""

from __future__ import annotations

import torch

from feature_store.errors import ConfigError
from recsys.compatible.contract import Fitted, Learnt, Paired
from recsys.compatible.methods import method_of
from recsys.compatible.old_index import OldIndex
from recsys.compatible.options import CompatibleConfig
from recsys.compatible.retriever import Compatible, Origin
from recsys.data.examples import Examples
from recsys.retrievers.trained import TrainedRetriever
from recsys.serving.manifest import LineageRecord


def learning(
    config: CompatibleConfig, retriever: TrainedRetriever, examples: Examples, seed: int
) -> Compatible | TrainedRetriever:
    """The retriever as it is trained: together with its bridge, where that learns; else alone.

    Raises ConfigError where the old model reads what the new one does not, or where only the new
    model compares unit vectors.
    """
    method = method_of(config.method)
    if not issubclass(method, Learnt):
        return retriever
    old = OldIndex.open(config.bundle, config.part, examples)
    if retriever.objective.config.normalise and not old.unit:
        raise ConfigError(
            f"compatible_with.bundle = {config.bundle}: its vectors are not of unit length, and "
            "retriever.normalise compares such: set it to false, or choose a method that is fitted"
        )
    bridge = method.make(config.method, old.items, retriever.objective.config.width, seed)
    users = getattr(config.method, "users", 0.0) if bridge.asks_users else 0.0
    answers = old.answers(retriever.inputs) if users else None
    return Compatible(retriever, bridge, old.items, answers=answers, users=users)


@torch.no_grad()
def upgraded(
    config: CompatibleConfig,
    retriever: Compatible | TrainedRetriever,
    examples: Examples,
    seed: int,
) -> Compatible:
    """The trained retriever as it answers: over a bridge of plain matrices, which is fitted now
    where it did not learn."""
    retriever.eval()
    old = OldIndex.open(config.bundle, config.part, examples)
    origin = _origin(config, old)
    both = old.items.known & (examples.train_events > 0)
    if not both.any():
        raise ConfigError(
            f"compatible_with.bundle = {config.bundle}: none of its items has training events here"
        )
    rows = both.nonzero().squeeze(1)
    backbone = retriever.backbone if isinstance(retriever, Compatible) else retriever
    paired = Paired(old.items.vectors[rows], backbone.item_matrix(rows))
    if isinstance(retriever, Compatible):
        assert isinstance(retriever.bridge, Learnt)
        settled = retriever.bridge.settled(paired)
        return Compatible(backbone, settled, old.items, origin=origin).eval()
    method = method_of(config.method)
    assert issubclass(method, Fitted)
    with torch.random.fork_rng(devices=[]):
        bridge = method.fit(config.method, paired, seed)
    return Compatible(retriever, bridge, old.items, origin=origin).eval()


def _origin(config: CompatibleConfig, old: OldIndex) -> Origin:
    record = old.generator.record
    before = record.lineage
    ancestors = () if before is None else before.ancestors
    if not ancestors or ancestors[-1] != record.space:  # who kept the index kept its space
        ancestors = (*ancestors, record.space)
    version = 2 if before is None else before.version + 1
    return Origin(
        record.space,
        LineageRecord(version=version, method=config.method.name, ancestors=ancestors),
    )
