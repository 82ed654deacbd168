"""Does SESA give the reasons that are true? People and jobs over ESCO's texts, see `esco_log`.

    recsys run pipelines/configs/esco_sesa.toml
    recsys run pipelines/configs/esco_sesa.toml name=esco_free ranker.bottleneck=false
    python -m benchmarks.esco_reasons --log data/esco

`auc` is of the test, beside that of the chances that the applications were drawn with and of the
same network without the bottleneck. `skill_auc` says how well skills of jobs are recognised, those
that the log tells and those that nobody told, over the skills of five jobs or more. `first_is_true`
is the share of applications, to jobs with which the person shares a skill, whose first reason is
such a skill; `always_the_same` that of naming the skill that is shared most often, each time;
`reasons_auc` how far shared skills stand above others, in the mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from benchmarks.requests import processor
from recsys.evaluation.pointwise import auc
from recsys.rankers.base import Ranker
from recsys.runs.finished import Run
from recsys.runs.fit import trained_model
from recsys.runs.moved import config_of
from recsys.serving.explainer import Explainer

REQUESTS, EXAMPLES, JOBS = 1000, 3, 5


def skill_auc(run: Run, truth: Any) -> dict[str, float]:
    """Of jobs whose skills the log tells, and of the others."""
    model, examples = trained_model(config_of(run.folder, None))
    ranker, told = cast(Ranker, model), truth["told"]
    rows = examples.vocabulary(examples.schema.item).encode(_strings(truth["jobs"]))
    with torch.no_grad():
        logits = ranker.recognised(torch.from_numpy(rows.copy())).double().numpy()
    place = {name: at for at, name in enumerate(truth["skills"].tolist())}
    asked = truth["asked"][:, [place[name] for name in ranker.concepts]]
    means = {}
    for name, part in (("told", told), ("untold", ~told)):
        judged = np.flatnonzero(asked[part].sum(0) >= JOBS)
        means[name] = float(np.mean([auc(asked[part, k], logits[part, k]) for k in judged]))
    return means


def _strings(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(values.tolist(), pa.string())


def true_auc(rows: pd.DataFrame, truth: Any) -> float:
    """Of the chances that the applications were drawn with."""
    jobs = rows["place"].to_numpy()
    shared = truth["has"][rows["user"]] & truth["asked"][jobs]
    return auc(rows["label"], shared @ truth["weights"] + truth["appeal"][jobs])


def reasons(run: Run, rows: pd.DataFrame, truth: Any) -> dict[str, Any]:
    """How often they are true, and examples."""
    explainer = Explainer.open(run.bundle)
    skills = np.array(explainer.concepts)
    place = {name: at for at, name in enumerate(truth["skills"].tolist())}
    order = [place[name] for name in explainer.concepts]
    both = (truth["has"][rows["user"]] & truth["asked"][rows["place"]])[:, order]
    chosen = rows[(rows["label"] == 1) & both.any(1)].sample(REQUESTS, random_state=0)
    shared = (truth["has"][chosen["user"]] & truth["asked"][chosen["place"]])[:, order]
    asked = pd.DataFrame({"person": chosen["user"], "job": chosen["item"]})
    told = explainer.explain(asked, len(skills))
    wide = told[told["kind"] == "concept"].pivot(
        index="request", columns="concept", values="contribution"
    )
    contributions = wide[skills.tolist()].to_numpy()
    first = contributions.argmax(1)
    examples = [
        {
            "person": int(chosen["user"].iloc[row]),
            "job": str(chosen["item"].iloc[row]),
            "probability": round(float(chosen["probability"].iloc[row]), 3),
            "reasons": {
                str(skills[at]): [round(float(contributions[row, at]), 3), bool(shared[row, at])]
                for at in np.argsort(-contributions[row])[:5]
            },
            "shared": skills[shared[row]].tolist(),
        }
        for row in range(EXAMPLES)
    ]
    return {
        "first_is_true": float(shared[np.arange(len(first)), first].mean()),
        "always_the_same": float(shared.mean(0).max()),
        "reasons_auc": float(
            np.mean([auc(*row) for row in zip(shared, contributions, strict=True)])
        ),
        "examples": examples,
    }


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/esco_sesa"))
    parser.add_argument("--free", type=Path, default=Path("runs/esco_free"))
    options = parser.parse_args()
    truth = np.load(options.log / "truth.npz")
    run, free = Run(options.run), Run(options.free)
    rows = pd.read_parquet(run.files.predictions_of("sesa"))
    place = {job: at for at, job in enumerate(truth["jobs"].tolist())}
    rows["place"] = rows["item"].map(place)
    measured = run.results["rankers"]["sesa"]
    line = {
        "benchmark": "esco_reasons",
        "auc": measured["metrics"]["AUC"],
        "auc_ci95": measured["ci95"]["AUC"],
        "auc_without_bottleneck": free.results["rankers"]["sesa"]["metrics"]["AUC"],
        "auc_of_the_truth": true_auc(rows, truth),
        "rows": measured["rows"],
        "skills": len(truth["skills"]),
        "skill_auc": skill_auc(run, truth),
        **reasons(run, rows, truth),
        "processor": processor(),
    }
    json.dump(line, sys.stdout)
    print()


if __name__ == "__main__":
    main()
