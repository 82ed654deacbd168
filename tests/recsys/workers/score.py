"""Asks a ranker's bundle in a process of its own: score.py BUNDLE REQUESTS ANSWERS."""

from __future__ import annotations

import sys

import pandas as pd

from recsys.serving.scorer import Scorer

if __name__ == "__main__":
    bundle, requests, answers = sys.argv[1:]
    Scorer.open(bundle).score(pd.read_parquet(requests)).to_parquet(answers)
    heavy = [name for name in sys.modules if name.startswith(("torchrec", "fbgemm", "mlflow"))]
    assert not heavy, f"serving imported {heavy[:3]}"
