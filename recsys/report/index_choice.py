"""What a report shows of an index that was chosen by promise: all that was measured."""

from __future__ import annotations

from dataclasses import dataclass

from feature_store.errors import DataError
from recsys.report.charts import Chart, index_speeds
from recsys.runs.finished import Run
from recsys.runs.weights import training_of
from recsys.serving.index.record import MeasuredIndex, PromiseRecord
from recsys.serving.manifest import GeneratorRecord, Manifest


@dataclass(frozen=True)
class IndexChoice:
    """Of a generator of the bundle: how its index was chosen."""

    part: str
    record: PromiseRecord
    chart: Chart

    @property
    def rows(self) -> list[tuple[MeasuredIndex, bool]]:
        """All that was measured, what was chosen last; whether it was."""
        measured = (*self.record.candidates, *self.record.missed)
        return [*((each, False) for each in measured), (self.record.chosen, True)]


def index_choices(run: Run) -> list[IndexChoice]:
    """Of every generator of the run's bundle that promises a recall; none where there is no bundle,
    or it is of another training."""
    try:
        parts = Manifest.load(run.bundle).parts
    except DataError:
        return []
    now = training_of(run.files)
    return [
        IndexChoice(name, promise, index_speeds(name, promise))
        for name, part in parts.items()
        if isinstance(part, GeneratorRecord)
        and (promise := part.index.promise) is not None
        and part.about.training == now
    ]
