"""Asks a bundle in a process of its own: serve.py BUNDLE REQUESTS.parquet ANSWERS.parquet."""

from __future__ import annotations

import sys

import pandas as pd

from recsys.serving.recommender import Recommender

if __name__ == "__main__":
    bundle, requests, answers = sys.argv[1:]
    recommender = Recommender.open(bundle)
    recommender.recommend(recommender.users()[:3], k=2)
    recommender.recommend(requests=pd.read_parquet(requests), k=10).to_parquet(answers)
    heavy = [name for name in sys.modules if name.startswith(("torchrec", "fbgemm", "mlflow"))]
    assert not heavy, f"serving imported {heavy[:3]}"
