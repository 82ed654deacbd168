"""Bench: measures one retriever after the other on the same requests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from feature_store.columns import HISTORY, TARGET, TARGET_VALUE
from feature_store.durable import ROW_GROUP_ROWS, write_tables
from feature_store.examples import files_of
from feature_store.parquet import read_batches
from feature_store.progress import stage
from feature_store.protocols import TEST
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.reader import Reader
from recsys.evaluation.ceiling import ceiling
from recsys.evaluation.evaluator import Result
from recsys.evaluation.funnel import LATENCY, stages_of
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.summary import summarise
from recsys.evaluation.user_slices import user_slices
from recsys.options import ModelConfig
from recsys.retrievers.base import Retriever
from recsys.runs.evaluators import make_evaluator, request_reader
from recsys.runs.latency import stage_latency
from recsys.runs.work import Work

_REQUESTS = 1 << 12  # looked at together: their histories may be long


class Watch(Protocol):
    """Who is told of progress."""

    def batches(self, what: str, reader: Reader) -> Iterable[Batch]:
        """The reader's batches, while it is shown how far they have come."""

    def note(self, text: str) -> None:
        """Something that people should know."""


class Bench:
    """Measures retrievers on the test requests of a run; `watch` is told on the leading process."""

    def __init__(self, work: Work, examples: Examples, watch: Watch | None = None) -> None:
        self.work, self.examples = work, examples
        self.watch = watch if work.group.leads else None
        options = work.config.evaluation
        with stage("look at the items that are ranked"):
            facts = ItemFacts.of(
                examples,
                category=options.category,
                columns=options.slice_columns,
                power=options.popularity_power,
            ).to(work.group.device)
        self.evaluator = make_evaluator(work.config, examples, TEST, facts)

    @property
    def candidates(self) -> int:
        """How many items are ranked."""
        return len(self.evaluator.candidates)

    def ceiling(self) -> dict[str, Any]:
        """How much of the test could be found at all, see `recsys.evaluation.ceiling`."""
        split = self.work.config.split
        worth = (TARGET_VALUE,) if self.examples.schema.price else ()
        return ceiling(
            (
                batch
                for path in files_of(self.examples.folder, TEST)
                for batch in read_batches(path, _REQUESTS, [HISTORY, TARGET, *worth])
            ),
            self.evaluator.candidates.cpu().numpy(),
            exclude_seen=split.seen == "exclude",
            leave_out_cold=split.cold_users == "leave_out",
        )

    def measure(
        self,
        name: str,
        retriever: Retriever,
        config: ModelConfig | None,
        fit_seconds: float | None,
    ) -> dict[str, Any]:
        """Rank the test, write what every user got, and return the retriever's figures."""
        options, group = self.work.config.evaluation, self.work.group
        reader = request_reader(self.work.config, self.examples, retriever, TEST, group)
        batches = reader if self.watch is None else self.watch.batches(f"evaluate {name}", reader)
        started = time.perf_counter()
        result = self.evaluator.evaluate(retriever.to(group.device), batches, group)
        seconds: dict[str, Any] = {"evaluate": round(time.perf_counter() - started, 3)}
        if fit_seconds is not None:
            seconds["fit"] = round(fit_seconds, 3)
        if stages_of(result.users):
            seconds[LATENCY] = self._latency(retriever)
        labels = user_slices(result, self.examples, options.slice_columns)
        if group.leads:
            path = self.work.files.lists_of(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tables(_per_user(result, labels, self.examples), path)
        tensors = retriever.state_dict().values()
        # a sharded table has no numel; its size is that of the whole table
        parameters = sum(t.size().numel() for t in tensors if t.is_floating_point())
        with stage(f"intervals of the figures of {name}"):
            summary = summarise(
                result, k=options.slice_cut, replicates=options.replicates, labels=labels
            )
        return {
            **summary,
            **({"parameters": parameters} if parameters else {}),
            "seconds": seconds,
            "config": config.model_dump(mode="json") if config else {},
        }

    def _latency(self, retriever: Retriever) -> dict[str, dict[str, float]]:
        """Milliseconds of every stage of a retriever."""
        config, group = self.work.config, self.work.group
        reader = request_reader(config, self.examples, retriever, TEST, group, most=group.world)
        with stage("ask for one request at a time"):
            return stage_latency(
                retriever,
                reader,
                config.evaluation.ks[-1],
                group.device,
                exclude_seen=config.split.seen == "exclude",
            )


def _per_user(
    result: Result, labels: dict[str, np.ndarray], examples: Examples
) -> Iterator[pa.Table]:
    """What every user got, with raw ids and the slices the user is in, some users at a time."""
    schema, first = examples.schema, 0
    users, items = examples.vocabulary(schema.user), examples.vocabulary(schema.item)
    for some_users in result.parts(ROW_GROUP_ROWS):
        table = some_users.per_user
        lists = table.column("recommended").combine_chunks()
        raw = {
            "user": users.decode(table.column("user").to_numpy()),
            "recommended": pa.ListArray.from_arrays(
                lists.offsets, items.decode(lists.values.to_numpy())
            ),
        }
        for name, column in raw.items():
            table = table.set_column(table.column_names.index(name), name, column)
        for name, of_user in labels.items():
            here = of_user[first : first + table.num_rows].tolist()
            table = table.append_column(f"slice:{name}", pa.array(here, pa.string()))
        first += table.num_rows
        yield table
