"""What is a new model worth over the index of an old one, by every method?

MovieLens-1M, leave one out. Old: SASRec of width 64 on the events before 70 % of all had happened,
without the last two of each user, which are the others' validation and test. New: width 128 on all
of training; `independent` is the same without a map. A fitted method takes that one's weights.
Recall@10 by queries/items with 95 % intervals over requests; `of_unconstrained` is what the new
queries find in the old index, and the new model over its own items, over what the independent one
finds on its own. `strict_and_whole` names the methods whose new queries find more in the old index
than old ones do, and whose model loses at most 1 % on an index of its own. A run that is in the
folder already is not trained again; one of other options, or of another log, is refused.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trained import CONFIGS
from pipelines.run import run
from recsys.compatible.matrix import Compatibility
from recsys.compatible.methods import METHODS, method_of
from recsys.config import RunConfig, load_config
from recsys.runs.compatibility import compatibility
from recsys.runs.fit import training_seconds
from recsys.runs.folder import RunFolder

INDEPENDENT = "independent"
VARIANTS: dict[str, dict[str, Any]] = {
    "aligner-published": {"retrieval": 0.0},
    "relative-published": {"whiten": 0.0},
}
WHOLE = 0.99  # of what the unconstrained model finds on an index of its own
CLASSES = {kind.model_fields["name"].default: kind for kind in METHODS}
SHARE = 0.7  # of the events, after which the old model was trained
LATER = 2  # events of a user that are validation and test


def write_before(source: Path, folder: Path) -> None:
    """The part of MovieLens-1M that the old model knows, in its own format."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    lines = (source / "ratings.dat").read_text(encoding="latin-1").splitlines()
    rows = np.array([line.split("::") for line in lines], dtype=np.int64)
    users, times = rows[:, 0], rows[:, 3]
    order = np.lexsort((times, users))
    first = np.flatnonzero(np.diff(users[order], prepend=-1))
    ends = np.repeat([*first[1:], len(rows)], np.diff([*first, len(rows)]))
    from_end = np.empty(len(rows), dtype=np.int64)
    from_end[order] = ends - 1 - np.arange(len(rows))
    kept = (times <= np.quantile(times, SHARE)) & (from_end >= LATER)
    text = "\n".join(lines[row] for row in np.flatnonzero(kept))
    (folder / "ratings.dat").write_text(text + "\n", encoding="latin-1")
    for name in ("movies.dat", "users.dat"):
        shutil.copy(source / name, folder / name)


def config_of(name: str, args: argparse.Namespace, folder: Path) -> RunConfig:
    """The config of the old model, of the independent one, or of a method."""
    before = folder / "runs" / "movielens_1m_before"
    common = [f"output={folder / 'runs'}", f"seed={args.seed}", "tracking.enabled=false"]
    if args.epochs:
        common.append(f"trainer.epochs={args.epochs}")
    if name == before.name:
        path = f"data.path={folder / 'ml-1m-old'}"
        return load_config(CONFIGS / f"{name}.toml", [*common, path, "baselines=[]"])
    common += [f"name={name}", f"data.path={args.data / 'ml-1m'}", 'baselines=["popularity"]']
    common += [f"compatible_with.bundle={before}"]
    kind = name.partition("-")[0]
    chosen = kind if kind in CLASSES else "procrustes"
    options = {"name": chosen} | dict((VARIANTS | args.options).get(name, {}))
    told = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    common.append(f"compatible_with.method={{{told}}}")
    config = load_config(CONFIGS / "movielens_1m_upgrade.toml", common)
    return config.model_copy(update={"compatible_with": None}) if name == INDEPENDENT else config


def trained(config: RunConfig, folder: Path) -> Path:
    """The folder of the finished run; a fitted method begins with the independent model."""
    upgrade = config.compatible_with
    own, base = config.folder, folder / "runs" / INDEPENDENT
    if upgrade is not None and not upgrade.method.learns_with_model and not own.exists():
        shutil.copytree(
            base, own, ignore=shutil.ignore_patterns("bundle*", "done.json", "per_user", "*.lock")
        )
    run(config)
    return own


def row_of(outcome: Compatibility, seconds: float, independent: float | None) -> dict[str, Any]:
    """What the table holds of a method."""
    told = outcome.to_dict()
    cells = {cell: [round(x, 4) for x in estimate] for cell, estimate in outcome.cells.items()}
    whole = independent or outcome.cells["new/new"].value
    return {
        "recall": cells,
        "gain": [round(x, 4) for x in outcome.gain],
        "strict": outcome.strict,
        "go": outcome.go,
        "of_unconstrained": {
            cell: round(outcome.cells[cell].value / whole, 4) for cell in ("new/old", "new/new")
        },
        "of_old": round(outcome.cells["new/old"].value / outcome.cells["old/old"].value, 4),
        "negative_flips": told["negative_flips"],
        "overlap": told["overlap"],
        "mixed": told["mixed"],
        "scores": told["scores"],
        "training_seconds": round(seconds),
    }


def main() -> None:
    """Train all that is not there, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds ml-1m")
    parser.add_argument("--folder", type=Path, help="keep the runs; by default they are not kept")
    parser.add_argument(
        "--only", nargs="*", default=[*CLASSES, *VARIANTS], help="methods, or METHOD-LABEL"
    )
    parser.add_argument(
        "--options", type=json.loads, default={}, help='JSON, such as {"aligner-x": {"weight": 9}}'
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        write_before(args.data / "ml-1m", folder / "ml-1m-old")
        old = trained(config_of("movielens_1m_before", args, folder), folder)
        rows: dict[str, dict[str, Any]] = {}
        unconstrained = None
        for name in (INDEPENDENT, *args.only):
            config = config_of(name, args, folder)
            new = trained(config, folder)
            outcome = compatibility(old, new)
            seconds = training_seconds(RunFolder(new)) or 0.0
            rows[name] = row_of(outcome, seconds, unconstrained)
            if name == INDEPENDENT:
                unconstrained = outcome.cells["new/new"].value
            elif config.compatible_with is not None:
                rows[name]["needs"] = method_of(config.compatible_with.method).needs
            told = {key: rows[name][key] for key in ("recall", "strict", "of_unconstrained")}
            print(f"{name}: {json.dumps(told)}", file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "benchmark": "upgrades",
                "methods": rows,
                "strict_and_whole": [
                    name
                    for name, row in rows.items()
                    if row["strict"] and row["of_unconstrained"]["new/new"] >= WHOLE
                ],
                "seed": args.seed,
                "minutes": round((time.perf_counter() - started) / 60, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
