"""A log of people and jobs over texts: names of skills, and what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import esco_log
from benchmarks.esco_log import Texts, name_of, write_log

TRADES = ("baking", "welding", "sewing", "milling")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cool metal parts cooling metal parts reduce heat Let metal cool.", "cool metal parts"),
        ("history of bread history of baking Where bread comes from.", "history of bread"),
        ("sell bread vend loaves Offer bread for money.", None),  # no name begins alike
        ("weld and join and weld pipes Join pipes.", None),  # a name does not end in `and`
        ("mend nets mended mend nets of fishers Nets are mended.", "mend nets mended"),
        ("cut cloth Cut it.", "cut cloth"),
    ],
)
def test_a_name_ends_where_the_next_begins_alike(text: str, name: str | None) -> None:
    assert name_of(text) == name


@pytest.fixture
def texts() -> Texts:
    skills = {
        f"{trade} loaves{n}": f"{trade} loaves{n} tool{n} oven" for n, trade in enumerate(TRADES)
    }
    jobs = [f"worker of {TRADES[n % 4]} with loaves{n % 4} number{n}" for n in range(40)]
    return Texts(pd.Series(skills), pd.Series(jobs, [f"esco/occupation/j{n}" for n in range(40)]))


def test_people_apply_where_skills_are_shared(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_ASKED": 1, "_RECURRING": 5, "_LEAST": 1}.items():
        monkeypatch.setattr(esco_log, name, value)
    for folder in ("a", "b"):
        write_log(texts, tmp_path / folder, people=100)
    events, jobs = (
        pd.read_parquet(tmp_path / "a" / f"{name}.parquet") for name in ("events", "jobs")
    )
    assert events.equals(pd.read_parquet(tmp_path / "b" / "events.parquet"))
    truth = np.load(tmp_path / "a" / "truth.npz")
    assert truth["asked"].sum(1).tolist() == [1] * 40  # the trade that the text names
    place = {job: at for at, job in enumerate(truth["jobs"])}
    rows = events["job"].map(place).to_numpy()
    shared = truth["has"][events["person"]] & truth["asked"][rows]
    assert events["applied"].groupby(shared.sum(1)).mean().is_monotonic_increasing
    told = jobs["skills"].str.len() > 0
    assert told.tolist() == truth["told"].tolist() and 0.5 < told.mean() < 1
    assert events["at"].is_monotonic_increasing and len(events) == 100 * esco_log.SHOWN
