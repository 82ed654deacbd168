"""The verbs of the command line that stand alone, in the order of its help."""

from __future__ import annotations

from pipelines.cli import (
    asking,
    comparing,
    days,
    evaluating,
    explaining,
    ingesting,
    looking,
    rolling_verb,
    scoring,
    serving,
    tuning,
    working,
)

VERBS = (
    working.run,
    days.daily,
    ingesting.ingest,
    tuning.tune,
    working.train,
    evaluating.evaluate,
    comparing.compare,
    rolling_verb.rolling,
    working.export,
    asking.recommend,
    scoring.score,
    serving.serve,
    explaining.explain,
    looking.plan,
    looking.doctor,
)
