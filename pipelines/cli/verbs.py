"""The verbs of the command line that stand alone, in the order of its help."""

from __future__ import annotations

from pipelines.cli import (
    asking,
    comparing,
    evaluating,
    explaining,
    ingesting,
    looking,
    scoring,
    serving,
    tuning,
    working,
)

VERBS = (
    working.run,
    ingesting.ingest,
    tuning.tune,
    working.train,
    evaluating.evaluate,
    comparing.compare,
    working.export,
    asking.recommend,
    scoring.score,
    serving.serve,
    explaining.explain,
    looking.plan,
    looking.doctor,
)
