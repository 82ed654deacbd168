"""Asks rankers' bundles in a process of its own: score.py BUNDLE FOLDER [BUNDLE FOLDER ...].

A folder holds requests.parquet and takes answers.parquet.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from recsys.serving.scorer import Scorer

if __name__ == "__main__":
    for bundle, folder in zip(sys.argv[1::2], map(Path, sys.argv[2::2]), strict=True):
        answers = Scorer.open(bundle).score(pd.read_parquet(folder / "requests.parquet"))
        answers.to_parquet(folder / "answers.parquet")
    heavy = [name for name in sys.modules if name.startswith(("torchrec", "fbgemm", "mlflow"))]
    assert not heavy, f"serving imported {heavy[:3]}"
