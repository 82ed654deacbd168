"""The finished retriever from whose lists a run's negatives are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from feature_store.columns import HISTORY
from feature_store.errors import ConfigError
from feature_store.labels import LabelConfig, ListsConfig
from feature_store.negatives import Find, Lists
from feature_store.schema import Schema
from feature_store.splits import Split
from feature_store.vocabulary import Vocabulary
from recsys.cascade.generator import Generator
from recsys.cascade.translation import Translation
from recsys.config import RunConfig
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Retriever
from recsys.runs.folder import RunFolder
from recsys.runs.leaks import check_not_learnt
from recsys.runs.learnt import learnt_model
from recsys.runs.log import open_log
from recsys.runs.parts import histories_learnt, part_config
from recsys.runs.phases import Phase, phases_of
from recsys.runs.standing import check_finished
from recsys.runs.weights import identity_of

_OPTION = "labels.negatives.lists.run"


def lists_fingerprint(labels: LabelConfig | None) -> str | None:
    """Of what makes the lists that are asked for; None where there are none, or the run is away."""
    lists = _asked(labels)
    return None if lists is None else identity_of(RunFolder(lists.run))


def open_lists(
    config: RunConfig,
    split: Split,
    labels: LabelConfig | None,
    prepare: Callable[[RunConfig, Phase], Examples],
) -> Lists | None:
    """What finds the lists that negatives of a run with this `split` are drawn from; None where
    none are. `prepare` gives the examples of a phase of another run.

    Raises DataError where what is named is no finished run, or has learned what is the test here,
    and ConfigError where it is no retriever's, is of another log, or reads events that the split
    leaves out.
    """
    lists = _asked(labels)
    if lists is None or labels is None or labels.negatives is None:
        return None
    part = part_config(_OPTION, lists.run)
    if part.retriever is None:
        raise ConfigError(f"{_OPTION}: {lists.run} is no run of a [retriever]: only those find")
    check_finished(_OPTION, part)
    if open_log(part)[0].fingerprint != open_log(config)[0].fingerprint:
        raise ConfigError(f"{_OPTION}: {lists.run} is of another event log than the run")
    histories = histories_learnt(config, _OPTION, part)
    phase = phases_of(part.trainer)[-1]
    known = prepare(part, phase)
    check_not_learnt(config, split, _OPTION, part, known)
    checkpoints = RunFolder(part.folder).phase(phase.name).checkpoints
    retriever = cast(Retriever, learnt_model(part, known, checkpoints))
    seen = labels.negatives.repeats

    def start(schema: Schema, vocabularies: Mapping[str, Vocabulary], items: np.ndarray) -> Find:
        features = [asked.feature for asked in retriever.inputs if asked.feature is not None]
        translation = Translation.between(_Ids(schema, vocabularies), known, features)
        generator = Generator(retriever, lists.budget, translation)
        generator.prepare(torch.from_numpy(items))
        return lambda requests: _found(generator, requests, seen)

    return Lists(histories, start)


@torch.no_grad()
def _found(generator: Generator, requests: pa.Table, seen: bool) -> np.ndarray:
    """Item rows [n, budget] of requests, with those of their histories where those may be `seen`;
    0 for none."""
    batch = Block.of(requests).to_batch()
    history = batch.jagged(HISTORY)
    hidden = None if seen else Pairs.of_lists(history.values(), history.lengths())
    items, _ = generator.finding(batch, hidden)()
    lists = np.zeros((len(batch), generator.budget), dtype=np.int64)
    lists[:, : items.shape[1]] = items.clamp(min=0).numpy()
    return lists


def _asked(labels: LabelConfig | None) -> ListsConfig | None:
    return None if labels is None or labels.negatives is None else labels.negatives.lists


@dataclass(frozen=True)
class _Ids:
    """What examples that are being written know."""

    schema: Schema
    tables: Mapping[str, Vocabulary]

    def vocabulary(self, feature: str) -> Vocabulary:
        """The vocabulary of a feature's table."""
        return self.tables[self.schema[feature].table_name]
